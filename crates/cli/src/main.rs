//! The binary `modelway`. The code is in the library of this crate.

#[global_allocator]
static ALLOCATOR: base::memory::Allocator = base::memory::Allocator;

fn main() -> std::process::ExitCode {
    modelway_cli::main()
}
