//! Drives the server over its sockets, with real models in the real runtime.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

extern crate modelway_modelserver as modelserver;

#[path = "serve/support.rs"]
mod support;

#[path = "serve/attacks.rs"]
mod attacks;
#[path = "serve/batching.rs"]
mod batching;
#[path = "serve/bounds.rs"]
mod bounds;
#[path = "serve/cache.rs"]
mod cache;
#[path = "serve/classes.rs"]
mod classes;
#[path = "serve/clients.rs"]
mod clients;
#[path = "serve/crashes.rs"]
mod crashes;
#[path = "serve/deadlines.rs"]
mod deadlines;
#[path = "serve/doors.rs"]
mod doors;
#[path = "serve/frames.rs"]
mod frames;
#[path = "serve/golden.rs"]
mod golden;
#[path = "serve/grpc.rs"]
mod grpc;
#[path = "serve/hostile.rs"]
mod hostile;
#[path = "serve/inputs.rs"]
mod inputs;
#[path = "serve/libraries.rs"]
mod libraries;
#[path = "serve/life.rs"]
mod life;
#[path = "serve/memory.rs"]
mod memory;
#[path = "serve/odd_models.rs"]
mod odd_models;
#[path = "serve/own_metrics.rs"]
mod own_metrics;
#[path = "serve/python.rs"]
mod python;
#[path = "serve/repository.rs"]
mod repository;
#[path = "serve/rest.rs"]
mod rest;
#[path = "serve/streams.rs"]
mod streams;
#[path = "serve/tolerance.rs"]
mod tolerance;
#[path = "serve/untaken.rs"]
mod untaken;
#[path = "serve/v1.rs"]
mod v1;
#[path = "serve/v2.rs"]
mod v2;
