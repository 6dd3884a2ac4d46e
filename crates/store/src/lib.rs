//! The store: all state that Modelway must not lose, in SQL.
//!
//! The same SQL text serves SQLite and PostgreSQL: columns are TEXT or BIGINT, times are microseconds, structured
//! values are JSON text. Method names begin with the noun. A change, its revision, its event and its wake-up commit in
//! one transaction, so no reader sees one without the others.
//!
//! Two workers never hold one deployment: each taking of its lease makes a greater fencing token, and
//! everything that a worker writes names its token. Numbers of deployments and versions of routes come from counter
//! rows inside the transaction, so they are never reused and their order is the order of commits. Ids of events need no
//! such row (`event/id.rs`). PostgreSQL transactions lock in one order: a deployment's row, its task, then the counters
//! `deployment`, `route`.
//!
//! **Invariant:** nothing here reads the clock; `now` is a parameter. (The queue, which is a loop, holds one.) No task
//! runs in the background.

mod connect;
mod counter;
mod database;
mod deployment;
mod epoch;
mod error;
mod event;
mod idempotency;
mod lease;
mod migration;
mod prune;
mod registry;
mod revision;
mod route;
mod row;
mod stray;
mod task_queue;
mod transaction;
mod wake_ups;
mod worker;

pub(crate) use connect::Sql;
pub use database::{Schema, Store};
pub use deployment::{DeploymentFilter, DeploymentRecord, Page, SettledRow};
pub use epoch::Lineage;
pub use error::StoreError;
pub use event::Order;
pub use idempotency::Idempotent;
pub use lease::{Fence, Lease};
pub use prune::Pruned;
pub use route::RoutePage;
pub use task_queue::{Receipt, Task, TaskQueue};
pub use worker::WorkerRecord;
