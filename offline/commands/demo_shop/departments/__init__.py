"""The demo shop's six departments, one module of words each."""

from offline.commands.demo_shop.departments.electronics import ELECTRONICS
from offline.commands.demo_shop.departments.hobbies import HOBBIES
from offline.commands.demo_shop.departments.home import HOME
from offline.commands.demo_shop.departments.kitchen import KITCHEN
from offline.commands.demo_shop.departments.outdoor import OUTDOOR
from offline.commands.demo_shop.departments.sports import SPORTS

__all__ = ["DEPARTMENTS"]

DEPARTMENTS = (OUTDOOR, KITCHEN, ELECTRONICS, SPORTS, HOME, HOBBIES)
