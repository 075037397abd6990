"""pytest plug-in of the published fakes (entry point `pytest11`)."""
