"""A recipe of one's own in the form of a new job."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.dashboard.browser import Screen, needs_chromium

pytestmark = [needs_chromium, pytest.mark.timeout(400)]


def test_a_recipe_of_ones_own_has_a_form_where_the_service_can_import_it(screen: Screen) -> None:
    page = screen.go("/new")
    page.get_by_label("task").select_option("a class of my own")
    name = page.get_by_label("name", exact=True).last
    config = page.get_by_label("config", exact=True)
    name.fill("nowhere.to_be:Found")
    config.fill("width=32\nkinds=[1, 2]\ntitle=two words")
    page.get_by_role("button", name="As YAML").click()
    yaml = page.get_by_label("Job as YAML")
    expect(yaml).to_have_value(re.compile(r"width: 32\n"))
    assert "title: two words" in yaml.input_value()
    page.get_by_role("button", name="As a form").click()
    expect(config).to_have_value("width=32\nkinds=[1,2]\ntitle=two words")
    name.fill("workers.recipes.parabola:Parabola")
    expect(page.get_by_label("theta0")).to_be_visible()
    expect(page.get_by_text("Additional properties are not allowed").first).to_be_visible()
    config.fill("")
    expect(config).to_have_count(0)
    page.get_by_label("theta0").fill("2.5")
    page.get_by_role("button", name="As YAML").click()
    expect(yaml).to_have_value(re.compile("theta0: 2.5\n"))
    page.get_by_role("button", name="As a form").click()
    expect(page.get_by_label("theta0")).to_have_value("2.5")
    screen.shown("own-recipe")
