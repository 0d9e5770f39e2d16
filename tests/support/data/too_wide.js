// What is cut off, or has the page scroll sideways, on a screen of this width.
return [...document.querySelectorAll(".pgq-dash *")]
    .filter((it) => it.getBoundingClientRect().right > innerWidth + 1 && !it.closest("svg, .pgq-value, thead"))
    .map((it) => it.outerHTML.slice(0, 120));
