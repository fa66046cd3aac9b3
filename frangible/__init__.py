"""Chaos and resilience experiments that prove their faults, judge with statistics and remember what was fragile."""
