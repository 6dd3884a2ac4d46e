//! The binary `modelway`. Everything is in the library beside it.

#[global_allocator]
static ALLOCATOR: base::memory::Allocator = base::memory::Allocator;

fn main() -> std::process::ExitCode {
    modelway_cli::main()
}
