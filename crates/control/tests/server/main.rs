//! The real server on a port of its own, over a real database, asked by a real client.

mod changes;
mod deployments;
mod ejected;
mod guard;
mod health;
mod listener;
mod logs;
mod lost;
mod openapi;
mod outage;
mod postgres;
mod refusals;
mod registry;
mod schema;
mod shutdown;
mod side_by_side;
mod support;
mod watch;
