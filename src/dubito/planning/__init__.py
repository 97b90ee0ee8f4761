"""The planner: learning curve, forecast, price of a label, when to stop."""
