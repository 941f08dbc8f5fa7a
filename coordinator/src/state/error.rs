//! What stops a member: bytes of its own log or rows that it cannot read.

/// An entry of the log that this program cannot decode. The member stops: to skip it would make its state another than the others'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by a later program.
    #[error("entry has form {form}, and this program knows up to {known}: update tresor on this coordinator")]
    Form {
        /// The entry's.
        form: u16,
        /// Ours.
        known: u16,
    },
    /// Not what was written.
    #[error("entry cannot be read: {why}")]
    Damaged {
        /// What the decoder said.
        why: String,
    },
}

/// Rows that this program cannot load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Written by a later program.
    #[error("a row of table {table} has form {form}: update tresor on this coordinator")]
    Form {
        /// The table's number.
        table: u8,
        /// The row's form.
        form: u8,
    },
    /// Of a table that this program does not have.
    #[error("there is a table {table}: update tresor on this coordinator")]
    Table {
        /// Its number.
        table: u8,
    },
    /// Not what was written.
    #[error("a row of table {table} cannot be read: {why}")]
    Row {
        /// The table's number.
        table: u8,
        /// What is wrong.
        why: String,
    },
}
