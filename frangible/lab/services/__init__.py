"""The lab's own programs: gateway, risk check, execution, order generator, auditor. Each is one asyncio process with one JSON file of settings."""
