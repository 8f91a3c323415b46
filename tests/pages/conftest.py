"""Pages are tested as the app shows them."""

import pytest
from streamlit.runtime.pages_manager import PagesManager


@pytest.fixture(autouse=True)
def under_the_navigation(monkeypatch):
    """A test would take the folder named pages for Streamlit's older kind of navigation (app.py says when it does not),
    and execute a page that it switches to by itself, without the app around it."""
    begin = PagesManager.__init__

    def begun(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        PagesManager.uses_pages_directory = False

    monkeypatch.setattr(PagesManager, "__init__", begun)
