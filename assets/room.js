// The bar of a seminar. For the presenter: how many follow. For viewers: whether they follow, and the way back.
//
// One room a tab, whatever page is on. It hears what the presenter shows as server-sent events; another page is asked
// of the page's script, which knows which that is. Where the film is goes between the players by two window events:
// “limbeck-film”, what a player did, and “limbeck-show”, what the players shall do. The part of a step in slow motion
// (“limbeck-part”) goes with it.

const PAUSE = 250; // milliseconds between two places of the film that are sent

export default function ({ parentElement, data, setTriggerValue }) {
  const room = (window.limbeckRoom ??= new Room());
  room.draw(parentElement, data, setTriggerValue);
  return () => room.leave(parentElement);
}

class Room {
  constructor() {
    this.following = sessionStorage.getItem("limbeck-alone") !== "1";
    this.view = null; // the last that was heard of: {number, page, query}
    this.film = null;
    this.followers = 0;
    this.asked = 0; // number of the view that the page's script was asked for
    this.back = false; // the presenter's view is wanted, whatever is on
    this.led = null; // where the film here was when a player told it last
    this.part = -1; // of a step in slow motion, at which it was halted; -1: it goes on
    window.addEventListener("limbeck-film", (event) => this.played(event.detail));
    window.addEventListener("limbeck-part", (event) => this.slowed(event.detail));
  }

  draw(parent, data, trigger) {
    if (!this.data && data.alone) this.following = false; // a link for a class leads where it says
    this.data = data;
    this.trigger = trigger;
    if (parent !== this.parent) this.build(parent);
    const { view } = this;
    // The viewer has been where the presenter is, and went to another page.
    if (!data.leads && this.following && view && data.at === view.number && data.page !== view.page) this.follow(false);
    this.listen();
    this.describe();
    this.go();
  }

  build(parent) {
    this.bar?.remove();
    this.parent = parent;
    this.bar = document.createElement("div");
    this.bar.className = "room";
    this.bar.setAttribute("role", "region");
    this.bar.setAttribute("aria-label", "Seminar");
    this.words = document.createElement("span");
    if (!this.data.leads) this.words.setAttribute("role", "status"); // a count would be read out at every change
    this.change = document.createElement("button");
    this.change.type = "button";
    this.change.onclick = () => this.follow(!this.following);
    this.size = document.createElement("button");
    this.size.type = "button";
    this.size.textContent = "Large type";
    this.size.onclick = () => this.trigger("big", true);
    this.bar.append(this.words, this.change, this.size);
    parent.append(this.bar); // beside its style
  }

  leave(parent) {
    if (parent === this.parent) this.parent = null; // the next page draws it anew
  }

  listen() {
    const wanted = this.data.leads || this.following;
    if (!wanted && this.source) {
      this.source.close();
      this.source = null;
    }
    if (!wanted || this.source) return;
    this.source = new EventSource("/api/seminar/events");
    const on = (kind, act) =>
      this.source.addEventListener(kind, (message) => {
        act(JSON.parse(message.data));
        this.describe();
      });
    on("followers", (count) => (this.followers = count));
    on("view", (view) => {
      this.view = view;
      this.go();
    });
    on("film", (film) => {
      this.film = film;
      this.show();
    });
    this.source.onerror = () => {
      if (this.source && this.source.readyState === EventSource.CLOSED) {
        this.source = null; // refused: the room is full, or the server is another one now
        clearTimeout(this.retry);
        this.retry = setTimeout(() => this.listen(), 5000);
      }
    };
  }

  follow(on) {
    this.following = on;
    sessionStorage.setItem("limbeck-alone", on ? "" : "1");
    this.view = null; // heard of anew when the stream is there again
    this.film = null;
    this.back = on;
    this.listen();
    this.describe();
  }

  // Ask for the presenter's page, once for each that it shows.
  go() {
    const { view, data } = this;
    if (data.leads || !this.following || !view) return;
    if (!this.back && (view.number === data.at || view.number === this.asked)) return;
    this.back = false;
    this.asked = view.number;
    this.trigger("view", view.number);
  }

  show() {
    if (!this.data.leads && this.following && this.film)
      window.dispatchEvent(new CustomEvent("limbeck-show", { detail: this.film }));
  }

  // A player was opened (not `own`), or somebody moved its film.
  played({ own, film }) {
    if (!this.data) return;
    this.led = film;
    this.take(own);
  }

  slowed({ own, part }) {
    if (!this.data || !this.led) return;
    this.part = part;
    this.take(own);
  }

  // Something was opened here (not `own`), or done by hand.
  take(own) {
    if (this.data.leads) this.send({ ...this.led, part: this.part });
    else if (!own) this.show();
    else if (this.following) this.follow(false);
  }

  send(film) {
    this.next = film;
    if (this.sending) return;
    const now = () => {
      if (!this.next) {
        this.sending = null;
        return;
      }
      const body = JSON.stringify(this.next);
      this.next = null;
      this.sending = setTimeout(now, PAUSE);
      fetch("/api/seminar/film", { method: "POST", headers: { "Content-Type": "application/json" }, body }).catch(() => {});
    };
    now();
  }

  describe() {
    const { data } = this;
    const many = this.followers === 1 ? "1 follows" : `${this.followers} follow`;
    const text = data.leads
      ? `You present: ${many} at ${data.address}`
      : this.following
        ? "Following the presenter"
        : "On my own";
    if (this.words.textContent !== text) this.words.textContent = text;
    this.change.hidden = data.leads;
    this.change.textContent = this.following ? "Look around on my own" : "Back to the presenter";
    this.size.setAttribute("aria-pressed", String(data.big));
  }
}
