#[allow(dead_code, unused_imports)]
mod server;

fn main() {}
