#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (tresor_tests::parsers::parser("slot_checkpoint").run)(bytes));
