"use strict";
// Shows a schedule's next firings while the form is filled in. Without this script the button "Preview" does it.
document.addEventListener("DOMContentLoaded", () => {
    const panel = document.querySelector("#pgq-firings[data-preview]");
    const type = document.querySelector("#id_schedule_type");
    if (!panel || !panel.dataset.preview || !type) {
        return;
    }
    const form = type.form;
    const preview = form.querySelector("[name=_preview]");
    if (preview) {
        preview.hidden = true;
    }

    // Only the row that belongs to the type, unless there is something wrong in it.
    const rows = {minutes: "I", seconds: "S", cron: "C"};
    const arrange = () => {
        for (const [name, letter] of Object.entries(rows)) {
            const row = form.querySelector(`.form-row.field-${name}`);
            if (row) {
                row.hidden = type.value !== letter && !row.classList.contains("errors");
            }
        }
    };

    let timer = 0;
    let latest = 0;
    const show = async () => {
        const mine = ++latest;
        panel.classList.add("pgq-old");
        try {
            const response = await fetch(panel.dataset.preview, {
                method: "POST", body: new FormData(form), credentials: "same-origin",
            });
            const html = await response.text();
            // An answer that was overtaken by the next question says nothing.
            if (mine === latest && response.ok) {
                panel.innerHTML = html;
            }
        } catch {
            // The server is out of reach: what is shown stays, and Save will tell.
        } finally {
            if (mine === latest) {
                panel.classList.remove("pgq-old");
            }
        }
    };
    const names = /^(schedule_type|minutes|seconds|cron|time_zone|repeats|name|next_run_[01])$/;
    // The admin's calendar and clock set values without an event but "change" of their own field, on click.
    const changed = (event) => {
        if (event.target.name === "schedule_type") {
            arrange();
        }
        if (names.test(event.target.name || "") || event.type === "click") {
            clearTimeout(timer);
            timer = setTimeout(show, 250);
        }
    };
    form.addEventListener("input", changed);
    form.addEventListener("change", changed);
    for (const box of document.querySelectorAll(".calendarbox, .clockbox, .datetimeshortcuts")) {
        box.addEventListener("click", changed);
    }
    arrange();
});
