// Puts in what changed, as the node sends it. Without this the page is as of when it was loaded.
"use strict";
(() => {
  const state = document.getElementById("live");
  const say = (text) => { if (state.textContent !== text) state.textContent = text; };
  const url = new URL("events", document.baseURI);
  url.search = new URLSearchParams({ lang: document.documentElement.lang });
  const source = new EventSource(url);
  source.onopen = () => say(state.dataset.live);
  source.onerror = () => say(state.dataset.lost);
  source.onmessage = (event) => {
    say(state.dataset.live);
    const changed = JSON.parse(event.data);
    for (const [id, html] of Object.entries(changed)) {
      const part = document.getElementById(id);
      if (!part) { location.reload(); return; }
      // The node has escaped every text in it; nothing here comes from anybody else.
      part.innerHTML = html;
    }
  };
})();
