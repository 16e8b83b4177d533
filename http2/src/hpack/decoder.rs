//! Header blocks of the peer (RFC 7541 sections 3 and 6).

use super::{
    DEFAULT_TABLE_SIZE, DecodeError, Field, OVERHEAD,
    field::Name,
    huffman, integer, static_table,
    table::{Entry, Table},
};

/// The room for Huffman-coded strings that is kept from one block to the next.
const SCRATCH_KEPT: usize = 4096;

/// Decodes the header blocks of one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    /// The most that the peer may set the table's size to.
    allowed: u64,
    /// A Huffman-coded string is decoded into this.
    scratch: Vec<u8>,
}

impl Decoder {
    /// `max_size` is the SETTINGS_HEADER_TABLE_SIZE that the peer is sent, once and for all.
    ///
    /// The peer uses 4096 bytes until it says otherwise: it may have sent blocks before the setting arrived. So a
    /// smaller setting makes the table smaller only when the peer says so.
    pub(crate) fn new(max_size: usize) -> Self {
        let allowed = max_size.max(DEFAULT_TABLE_SIZE) as u64;
        Self { table: Table::new(), allowed, scratch: Vec::new() }
    }

    /// Decodes a complete header block. Each field goes to `sink`, in order, with its size as RFC 7541 section 4.1
    /// counts it.
    pub(crate) fn decode(&mut self, mut block: &[u8], sink: &mut impl FnMut(Field, usize)) -> Result<(), DecodeError> {
        self.resize(&mut block)?;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let entry = self.entry(integer::decode(&mut block, 7)?)?;
                sink(entry.field.clone(), entry.size);
            } else {
                let entry = self.literal(first, &mut block)?;
                if first & 0x40 != 0 {
                    sink(entry.field.clone(), entry.size);
                    self.table.insert(entry);
                } else {
                    sink(entry.field, entry.size);
                }
            }
        }
        if self.scratch.len() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Changes of the table's size, which are only allowed at the beginning of a block.
    fn resize(&mut self, block: &mut &[u8]) -> Result<(), DecodeError> {
        while let Some(0x20..=0x3f) = block.first() {
            let size = integer::decode(block, 5)?;
            if size > self.allowed {
                return Err(DecodeError::TableTooLarge(size));
            }
            self.table.set_max_size(size as usize);
        }
        Ok(())
    }

    #[inline]
    fn entry(&self, index: u64) -> Result<&Entry, DecodeError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let found =
            if at <= static_table::LEN { static_table::get(at) } else { self.table.get(at - static_table::LEN - 1) };
        found.ok_or(DecodeError::NoSuchEntry(index))
    }

    /// A field whose value, and maybe name, is in the block.
    fn literal(&mut self, first: u8, block: &mut &[u8]) -> Result<Entry, DecodeError> {
        let prefix = match first {
            0x40.. => 6,
            0x20.. => return Err(DecodeError::LateTableSize),
            _ => 4,
        };
        let never_indexed = first & 0xf0 == 0x10;
        let name = match integer::decode(block, prefix)? {
            0 => Name::parse(string(block, &mut self.scratch)?),
            index => self.entry(index)?.name(),
        };
        let name_length = name.len();
        let value = string(block, &mut self.scratch)?;
        let size = name_length + value.len() + OVERHEAD;
        Ok(match name.with(value) {
            Ok(mut field) => {
                if let (true, Field::Header(_, value)) = (never_indexed, &mut field) {
                    value.set_sensitive(true);
                }
                Entry { field, size, malformed: None }
            }
            Err(name) => Entry { field: Field::Malformed, size, malformed: Some(Box::new(name)) },
        })
    }

    /// The sum of the sizes of the table's entries.
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }

    /// The same, how many entries there are, and how large the table may be.
    #[cfg(test)]
    pub(super) fn table_sizes(&self) -> (usize, usize, usize) {
        self.table.sizes()
    }
}

/// A string (RFC 7541 section 5.2), decoded into `scratch` if need be.
fn string<'a, 'b: 'a>(block: &mut &'b [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], DecodeError> {
    let &first = block.first().ok_or(DecodeError::Truncated)?;
    let length = usize::try_from(integer::decode(block, 7)?).map_err(|_| DecodeError::Truncated)?;
    let (coded, rest) = block.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *block = rest;
    if first & 0x80 == 0 {
        return Ok(coded);
    }
    let room = huffman::longest_string(coded.len());
    if scratch.len() < room {
        scratch.resize(room, 0);
    }
    let length = huffman::decode(coded, scratch)?;
    Ok(&scratch[..length])
}
