// Only saves reloads: every link and form marked `data-swap` works without this file.
"use strict";

document.documentElement.classList.add("script");
let latest = 0;
let waiting;
let shown = location.pathname + location.search;

// How: "push" adds to the history, "replace" is for typing, "" keeps the address as it is.
async function show(address, keepsPlace, how) {
  const mine = ++latest;
  let answer, text;
  try {
    answer = await fetch(address, { headers: { accept: "text/html" } });
    text = await answer.text();
  } catch {
    location.href = address;
    return;
  }
  if (mine !== latest) return; // a newer request was made meanwhile
  const kind = answer.headers.get("content-type") ?? "";
  const found = new DOMParser().parseFromString(text, "text/html");
  const fresh = found.getElementById("page");
  if (!kind.startsWith("text/html") || !fresh) {
    location.href = address;
    return;
  }
  const focused = document.activeElement;
  const id = focused?.id;
  const typed = how === "replace" ? [focused?.value, focused?.selectionStart] : null;
  const scrolled = [...document.querySelectorAll(".strip")].map((one) => one.scrollLeft);
  if (how === "push") history.pushState(null, "", answer.url);
  if (how === "replace") history.replaceState(null, "", answer.url);
  shown = location.pathname + location.search;
  document.title = found.title;
  document.getElementById("page").replaceWith(fresh);
  const again = id ? document.getElementById(id) : null;
  if (again) {
    again.focus({ preventScroll: keepsPlace });
    if (typed && again.matches("input[type=search]")) {
      again.value = typed[0]; // more may have been typed meanwhile
      again.setSelectionRange(typed[1], typed[1]);
    }
  } else {
    document.getElementById("main").focus({ preventScroll: true });
  }
  if (keepsPlace) {
    document.querySelectorAll(".strip").forEach((one, at) => { one.scrollLeft = scrolled[at] ?? 0; });
  } else {
    scrollTo(0, 0);
  }
  const said = document.getElementById("said");
  said.textContent = "";
  setTimeout(() => { said.textContent = document.getElementById("main").dataset.said; }, 50);
}

function addressOf(form) {
  const address = new URL(form.action);
  const pairs = [...new FormData(form)].filter(([, value]) => value !== "");
  address.search = new URLSearchParams(pairs).toString();
  return address.href;
}

const pathOf = (address) => new URL(address, location.href).pathname;

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-swap]");
  const plain = !(event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
  if (!link || !plain || event.defaultPrevented) return;
  event.preventDefault();
  show(link.href, pathOf(link.href) === location.pathname, "push");
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-swap]")) return;
  event.preventDefault();
  clearTimeout(waiting);
  show(addressOf(form), pathOf(form.action) === location.pathname, "push");
});

document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-auto] select")) event.target.form.requestSubmit();
});

document.addEventListener("input", (event) => {
  const form = event.target.closest("form[data-live]");
  if (!form) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => show(addressOf(form), true, "replace"), 250);
});

addEventListener("popstate", () => {
  // A link to a part of this page changes the address too, but not the content.
  if (location.pathname + location.search !== shown) show(location.href, false, "");
});
