"""Bridges to other libraries; each is imported only on request."""
