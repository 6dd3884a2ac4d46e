//! A backend that runs nothing, for tests and for measuring the control plane.
