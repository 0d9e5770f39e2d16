// What a screen reader stumbles over.
const bad = [];
const all = (css) => [...document.querySelectorAll(css)];
const name = (element) => (element.getAttribute("aria-label") || element.textContent || element.value || "").trim();
const blame = (css, fails, why) => bad.push(...all(css).filter(fails).map((it) => `${why}: ${it.outerHTML.slice(0, 120)}`));
blame(".pgq-dash :is(a, button, summary)", (it) => !name(it), "no name");
blame(".pgq-dash svg", (it) => it.getAttribute("role") !== (it.querySelector("a") ? "group" : "img") || !it.getAttribute("aria-label"), "no name");
blame(".pgq-dash progress", (it) => !it.getAttribute("aria-label"), "no name");
blame(".pgq-dash input:not([type=hidden])", (it) => !it.labels.length, "no label");
blame(".pgq-dash table", (it) => !it.querySelector("th[scope=col]"), "no headings");
blame("[aria-labelledby]", (it) => !document.getElementById(it.getAttribute("aria-labelledby")), "a name that is not there");
const ids = all("[id]").map((it) => it.id);
bad.push(...ids.filter((id, place) => ids.indexOf(id) !== place).map((id) => `twice: ${id}`));
if (!document.documentElement.lang) {
    bad.push("no language");
}
return bad;
