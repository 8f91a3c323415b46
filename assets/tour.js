// The guided tour's card: docked at the bottom of the window, with the page above it rather than below it.
//
// The page's script sends one stop (small JSON). Next, Back and the dots ask it for another, which is a navigation;
// pointing at a part of the equation outlines what it touches on the page.

const COPPER = "#b0602e";
const HEAD = 64; // pixels of the navigation above a page
// Where the arrow keys have a meaning of their own.
const KEYED =
  "input, textarea, select, canvas, video, audio, [contenteditable=true], [role=slider], [role=radio], [role=tab], " +
  "[role=option], [role=listbox], [role=combobox], [role=menu], [role=menuitem], [role=grid], [role=dialog], " +
  "[role=application], [role=spinbutton], [role=textbox], [role=region][tabindex]";
const cards = new WeakMap(); // survives that this module's function is called again on every change

export default function ({ parentElement, data, setTriggerValue }) {
  let card = cards.get(parentElement);
  if (!card) {
    card = new Card(parentElement);
    cards.set(parentElement, card);
  }
  card.tell = setTriggerValue;
  card.apply(data);
  return () => {
    card.close();
    cards.delete(parentElement);
  };
}

// What a selector finds on the page and can be seen; “host >>> inner” looks into the host's components.
function find(selector) {
  const [host, inner] = selector.split(" >>> ");
  let found = [...document.querySelectorAll(host)];
  if (inner)
    found = found
      .flatMap((one) => [one, ...one.querySelectorAll("*")])
      .flatMap((one) => (one.shadowRoot ? [...one.shadowRoot.querySelectorAll(inner)] : []));
  return found.filter((one) => one.getClientRects().length);
}

class Card {
  constructor(parent) {
    this.at = 0;
    this.lit = []; // [element, its outline before, its offset before]
    this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const button = (text, label, act) =>
      element("button", { type: "button", textContent: text, title: label, ariaLabel: label, onclick: act });
    this.title = element("h2");
    this.text = element("div", { className: "text" });
    this.told = element("div", { className: "told", ariaLive: "polite" }, this.title, this.text);
    this.side = element("div", { className: "side" });
    this.dots = element("ol", { className: "dots", ariaLabel: "Stops" });
    this.back = button("Back", "Back (left arrow key)", () => this.go(this.wanted - 1));
    this.on = button("Next", "Next (right arrow key)", () => this.go(this.wanted + 1));
    this.on.className = "next";
    this.fold = button("Fold", "Fold the card up", () => this.setFolded(!this.folded));
    this.root = element(
      "section",
      { className: "tour", ariaLabel: "Guided tour" },
      element(
        "div",
        { className: "bar" },
        (this.count = element("span", { className: "count" })),
        this.dots,
        this.back,
        this.on,
        this.fold,
        button("Close", "Close the tour; the page stays", () => this.tell("shut", true)),
      ),
      (this.body = element("div", { className: "body" }, this.told, this.side)),
    );
    this.setFolded(false);
    parent.append(this.root);
    this.sizes = new ResizeObserver(() => this.makeRoom());
    this.sizes.observe(this.root);
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
  }

  apply(data) {
    const same = JSON.stringify(data);
    if (same === this.same) return;
    const other = data.at !== this.at;
    this.same = same;
    this.data = data;
    this.at = this.wanted = data.at;
    if (other) this.chosen = null;
    this.dark();
    this.held = null;
    this.drawBar();
    this.drawText();
    this.drawSide();
    if (other) this.body.scrollTop = 0;
  }

  // ---- going on ----

  go(to) {
    if (to < 1 || to > this.data.titles.length || to === this.wanted) return;
    this.wanted = to; // pressed twice before the page has answered is two stops
    this.drawBar();
    this.tell("go", to);
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (document.fullscreenElement) return;
    if (event.composedPath().some((one) => one instanceof Element && one.matches(KEYED))) return;
    event.preventDefault();
    this.go(this.wanted + by);
  }

  // ---- drawing ----

  drawBar() {
    const { titles } = this.data;
    this.count.textContent = `Stop ${this.wanted} of ${titles.length}`;
    this.back.disabled = this.wanted === 1;
    this.on.disabled = this.wanted === titles.length;
    if (this.dots.children.length !== titles.length)
      this.dots.replaceChildren(
        ...titles.map((title, i) => {
          const label = `Stop ${i + 1}: ${title}`;
          return element("li", {}, element("button", { type: "button", title: label, ariaLabel: label, onclick: () => this.go(i + 1) }));
        }),
      );
    [...this.dots.children].forEach((item, i) => {
      if (i + 1 === this.wanted) item.firstChild.setAttribute("aria-current", "step");
      else item.firstChild.removeAttribute("aria-current");
    });
  }

  drawText() {
    const { titles, sentences, note, away } = this.data;
    this.title.textContent = titles[this.at - 1];
    this.text.replaceChildren(...sentences.map((sentence) => element("p", {}, sentence)));
    if (note) this.text.append(element("p", { className: "note" }, note));
    if (away) {
      const there = element("button", { type: "button", className: "there", onclick: () => this.tell("go", this.at) });
      there.textContent = "To the page of this stop";
      this.text.append(element("p", { className: "note" }, "You are on another page than this stop. ", there));
    }
  }

  drawSide() {
    const { equation, parts, terms, paper } = this.data;
    this.side.replaceChildren();
    if (this.data.question) this.side.append(this.ask(this.data.question));
    if (equation) {
      this.equation = element("div", { className: "equation", innerHTML: equation });
      this.equation.onpointerover = (event) => this.point(event.target.closest("[data-part]"));
      this.equation.onpointerleave = () => this.point(null);
      this.side.append(this.equation);
    } else this.equation = null;
    this.chips = new Map();
    const row = element("p", { className: "chips" });
    if (parts.length) row.append(element("span", {}, equation ? "In it:" : "Look at:"));
    for (const part of parts) {
      const chip = element("button", { type: "button", className: "part", textContent: part.name, ariaPressed: "false" });
      chip.onpointerenter = (event) => event.pointerType === "mouse" && this.light(part);
      chip.onpointerleave = () => this.light(this.held);
      chip.onfocus = () => chip.matches(":focus-visible") && this.light(part, true);
      chip.onblur = () => this.light(this.held);
      chip.onclick = () => this.hold(part);
      this.chips.set(part, chip);
      row.append(chip);
    }
    if (terms.length) row.append(element("span", {}, "Terms:"));
    for (const term of terms) {
      const chip = element("button", { type: "button", textContent: `${term.name} ?`, ariaExpanded: "false" });
      chip.onclick = () => this.explain(term, chip);
      this.chips.set(term, chip);
      row.append(chip);
    }
    row.append(element("a", { href: "terms", target: "_blank", rel: "noopener" }, "All terms"));
    this.said = element("p", { className: "said", ariaLive: "polite" });
    this.side.append(row, this.said);
    if (paper) this.side.append(element("p", { className: "paper" }, `The equation is simplified. ${paper}.`));
  }

  ask(question) {
    const group = element("div", { className: "question", role: "group", ariaLabel: "A question" });
    group.append(element("p", {}, element("strong", {}, question.text)));
    const answer = element("p", { className: "answer", ariaLive: "polite" });
    if (!question.choices.length) answer.textContent = question.said;
    const show = () => {
      const hit = this.chosen === question.right;
      answer.textContent = `${hit ? "Right." : `Not so: “${question.choices[question.right]}”.`} ${question.said}`;
    };
    const buttons = question.choices.map((text, i) =>
      element("button", {
        type: "button",
        textContent: text,
        onclick: () => {
          this.chosen = i;
          buttons.forEach((one, n) => (one.ariaPressed = String(n === i)));
          show();
          this.tell("answered", true);
        },
      }),
    );
    buttons.forEach((one, n) => (one.ariaPressed = String(n === this.chosen)));
    group.append(element("p", { className: "chips" }, ...buttons), answer);
    if (question.choices.length && this.chosen !== null) show();
    return group;
  }

  setFolded(folded) {
    this.folded = folded;
    this.body.hidden = folded;
    this.root.classList.toggle("folded", folded);
    this.fold.textContent = folded ? "Unfold" : "Fold";
    this.fold.title = this.fold.ariaLabel = folded ? "Unfold the card" : "Fold the card up";
    this.fold.ariaExpanded = String(!folded);
  }

  // The page ends where the card begins, so that the card covers nothing.
  makeRoom() {
    const page = document.documentElement;
    page.dataset.tour = String(this.at);
    page.style.setProperty("--tour-room", `${Math.ceil(this.root.getBoundingClientRect().height)}px`);
  }

  // ---- light ----

  point(target) {
    const part = target && this.data.parts.find((one) => one.key === target.dataset.part);
    this.light(part || this.held);
  }

  hold(part) {
    this.held = this.held === part ? null : part;
    this.light(this.held, true);
  }

  explain(term, chip) {
    const open = chip.ariaExpanded === "true";
    this.held = null;
    this.light(null);
    if (open) return;
    chip.ariaExpanded = "true";
    this.said.textContent = term.words;
  }

  light(part, show = false) {
    this.dark();
    for (const [one, chip] of this.chips)
      if (chip.className === "part") chip.ariaPressed = String(one === this.held);
      else chip.ariaExpanded = "false";
    if (!part) {
      this.said.textContent = "";
      return;
    }
    const found = part.lights.flatMap(find);
    this.lit = found.map((one) => [one, one.style.outline, one.style.outlineOffset]);
    for (const one of found) {
      one.style.outline = `3px solid ${COPPER}`;
      one.style.outlineOffset = "-3px";
      one.dataset.lit = part.key;
    }
    for (const one of this.terms(part)) one.classList.add("lit");
    this.said.textContent = found.length ? part.words : `${part.words} (It is not on the page at the moment.)`;
    if (show && found.length && !this.inView(found[0])) this.bring(found[0]);
  }

  dark() {
    for (const [one, outline, offset] of this.lit) {
      one.style.outline = outline;
      one.style.outlineOffset = offset;
      delete one.dataset.lit;
    }
    this.lit = [];
    if (this.equation) for (const one of this.equation.querySelectorAll(".lit")) one.classList.remove("lit");
  }

  terms(part) {
    return this.equation ? this.equation.querySelectorAll(`[data-part="${part.key}"]`) : [];
  }

  inView(one) {
    const box = one.getBoundingClientRect();
    return box.top >= HEAD && box.top < this.root.getBoundingClientRect().top - 60;
  }

  bring(one) {
    const fits = one.getBoundingClientRect().height < this.root.getBoundingClientRect().top - HEAD;
    one.style.scrollMarginTop = `${HEAD}px`;
    one.scrollIntoView({ block: fits ? "center" : "start", behavior: this.calm ? "auto" : "smooth" });
  }

  close() {
    this.dark();
    this.sizes.disconnect();
    document.removeEventListener("keydown", this.onKey);
    document.documentElement.style.removeProperty("--tour-room");
    delete document.documentElement.dataset.tour;
    this.root.remove();
  }
}
