// Each report on its way has an element with data-poll: the address of the fragment that replaces its list item.
async function look() {
  for (const mark of document.querySelectorAll("[data-poll]")) {
    try {
      const answer = await fetch(mark.dataset.poll);
      if (answer.ok) mark.closest("li").innerHTML = await answer.text();
    } catch {
      // The server cannot be reached just now: the next look may find it.
    }
  }
  setTimeout(look, 1000);
}
look();
