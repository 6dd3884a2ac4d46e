//! What every task queue must do, as one suite that each implementation's tests call.
