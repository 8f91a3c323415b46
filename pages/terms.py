"""Terms: what do the words of this field mean, and where do they come from?"""

from __future__ import annotations

import html

import streamlit as st

from engine.glossary import TERMS, Term, search
from pages.components import address

LONGEST = 100  # characters that are searched for


def entry(term: Term, marked: bool) -> str:
    """A term as HTML, with a link to itself."""
    name, means, paper = (html.escape(text) for text in (term.name, term.means, term.paper))
    return (
        f'<dt id="term-{term.id}"{" class=marked" if marked else ""}>{name} '
        f'<a href="?term={term.id}" target="_self" aria-label="Link to {name}">#</a></dt>'
        f"<dd>{means} <cite>{paper}</cite></dd>"
    )


def page() -> None:
    st.title("Terms")
    st.write("What the words of this field mean, in two sentences each, and the papers they come from.")
    query = address.query()
    asked = query.get("term", "")
    st.session_state.setdefault("find", query.get("find", "")[:LONGEST])
    words = st.text_input("Search", key="find", placeholder="such as gradient", max_chars=LONGEST)
    address.put(find=words or None)
    first = TERMS.get(asked)
    if asked and first is None:
        st.info(f"There is no term “{asked[:60]}” here; these are all.")
    found = sorted(search(words), key=lambda term: term is not first)
    if not found:
        st.info("No term has these words. Try fewer of them, or a part of one.")
        return
    st.html(f'<dl class="terms">{"".join(entry(term, term is first) for term in found)}</dl>')


page()
