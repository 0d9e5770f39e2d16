"use strict";
// Reads the changing part of a page anew, and knows some keys. Without this script the link "Refresh" does the first.
document.addEventListener("DOMContentLoaded", () => {
    const live = document.getElementById("pgq-live");
    if (!live) {
        return;
    }
    const said = document.getElementById("pgq-said");
    const usual = Number(live.dataset.refresh) * 1000;
    const address = new URL(location.href);
    address.searchParams.set("fragment", "1");
    let tag = "";
    let pause = usual;
    let timer = 0;

    const say = (what) => {
        const text = said.dataset[what] || "";
        if (said.textContent !== text) {
            said.textContent = text;
        }
    };
    const typing = () => {
        const focused = document.activeElement;
        return focused !== null && focused.matches("input, textarea, select") && !focused.matches("[type=submit]");
    };
    // What the reader opened stays open, and the link that has the focus keeps it.
    const replace = (html) => {
        const open = new Set([...live.querySelectorAll("details[open]")].map(keyOf));
        const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        const tops = [...live.querySelectorAll(".pgq-value")].map((block) => block.scrollTop);
        live.innerHTML = html;
        for (const details of live.querySelectorAll("details")) {
            details.open = open.has(keyOf(details));
        }
        live.querySelectorAll(".pgq-value").forEach((block, place) => {
            block.scrollTop = tops[place] || 0;
        });
        if (focused !== null) {
            const again = [...live.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused);
            if (again) {
                again.focus({preventScroll: true});
            }
        }
    };
    const keyOf = (details) => details.dataset.keep || details.querySelector("summary")?.textContent;

    const read = async () => {
        clearTimeout(timer);
        if (document.hidden) {
            return;
        }
        if (typing() || !getSelection().isCollapsed) {
            say("paused");
            timer = setTimeout(read, 1000);
            return;
        }
        try {
            const response = await fetch(address, {
                headers: tag ? {"If-None-Match": tag} : {}, cache: "no-store", credentials: "same-origin", redirect: "manual",
            });
            if (response.status === 200) {
                const html = await response.text();
                if (!typing() && getSelection().isCollapsed) {
                    replace(html);
                    tag = response.headers.get("ETag") || "";
                }
            } else if (response.status !== 304) {
                throw new Error("no answer");
            }
            pause = usual;
            say("on");
        } catch {
            pause = Math.min(pause * 2, 60000);
            say("off");
        }
        timer = setTimeout(read, pause);
    };
    document.addEventListener("visibilitychange", read);
    timer = setTimeout(read, usual);
    say("on");

    let going = 0;
    document.addEventListener("keydown", (event) => {
        if (typing() || event.ctrlKey || event.metaKey || event.altKey) {
            return;
        }
        if (Date.now() - going < 1500) {
            going = 0;
            const link = [...document.querySelectorAll(".pgq-nav a[data-key]")].find((it) => it.dataset.key === event.key);
            if (link) {
                event.preventDefault();
                link.click();
            }
        } else if (event.key === "g") {
            going = Date.now();
        } else if (event.key === "r") {
            read();
        } else if (event.key === "/") {
            const box = document.getElementById("pgq-q");
            if (box) {
                event.preventDefault();
                box.focus();
                box.select();
            }
        }
    });
});
