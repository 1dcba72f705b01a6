"""The demo shop's six departments, one module of words each."""

from offline.demo_shop.departments.electronics import ELECTRONICS
from offline.demo_shop.departments.hobbies import HOBBIES
from offline.demo_shop.departments.home import HOME
from offline.demo_shop.departments.kitchen import KITCHEN
from offline.demo_shop.departments.outdoor import OUTDOOR
from offline.demo_shop.departments.sports import SPORTS

__all__ = ["DEPARTMENTS"]

DEPARTMENTS = (OUTDOOR, KITCHEN, ELECTRONICS, SPORTS, HOME, HOBBIES)
