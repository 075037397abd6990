"""Token info, introspection and the answer to gateways: judges tokens for those who do not themselves."""
