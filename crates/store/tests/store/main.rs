//! The store and its queue against both databases: every test runs on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests, also outside functions marked so")]

// As the other crates call it.
extern crate modelway_store as store;

mod deployments;
mod events;
mod forms;
mod hints;
mod leases;
mod opening;
mod placement;
mod prune;
mod queue;
mod queue_life;
mod registry;
mod routes;
mod scale;
mod support;
