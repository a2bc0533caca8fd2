// Swaps the parts of a page that have news. Each part names its topics in data-topics; the server names the topics
// that have news; the page is fetched again as a fragment and parts of the same id are replaced.
"use strict";
(() => {
  const parts = () => [...document.querySelectorAll("[data-topics]")];
  if (parts().length === 0 || !window.EventSource) return;
  const wanted = new Set();
  let busy = false;

  async function refresh() {
    if (busy || wanted.size === 0) return;
    busy = true;
    wanted.clear();
    try {
      const answer = await fetch(location.href, { headers: { "x-fragment": "1" }, credentials: "same-origin" });
      if (answer.redirected || answer.status === 401) { location.assign("/login"); return; }
      if (answer.ok) swap(await answer.text());
    } catch (error) {
      // The server is away; the event stream reconnects and asks again.
    } finally {
      busy = false;
      setTimeout(refresh, 250);
    }
  }

  function swap(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of parts()) {
      const next = fresh.getElementById(part.id);
      if (next && next.innerHTML !== part.innerHTML) part.replaceWith(document.adoptNode(next));
    }
  }

  function heard(topics) {
    const shown = new Set(parts().flatMap((part) => part.dataset.topics.split(" ")));
    if (topics.some((topic) => shown.has(topic))) { wanted.add(1); refresh(); }
  }

  const state = document.getElementById("live-state");
  const source = new EventSource("/live");
  source.addEventListener("hello", () => { if (state) state.textContent = "live"; });
  source.addEventListener("news", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("error", () => { if (state) state.textContent = "reconnecting…"; });
})();
