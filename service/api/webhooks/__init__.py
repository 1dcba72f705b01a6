"""What shop systems send of orders, as events: pure functions of a body, a module for each system."""
