//! Compiles the messages and services of `proto/` without a `protoc` on the machine.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files =
        ["admin", "agent", "join", "parts", "peer", "slots"].map(|name| format!("proto/tresor/v1/{name}.proto"));
    let set = protox::compile(&files, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    // For reflection: whoever has the address can ask what may be called.
    std::fs::write(out.join("tresor.v1.bin"), prost_bytes(&set))?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .compile_fds(set)?;
    Ok(())
}

fn prost_bytes(set: &impl prost::Message) -> Vec<u8> {
    set.encode_to_vec()
}
