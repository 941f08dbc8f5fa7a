#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (tresor_tests::parsers::parser("pack_list").run)(bytes));
