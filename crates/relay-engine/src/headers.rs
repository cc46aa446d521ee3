//! Where in a datagram its cell and its path header stand, and which flow it belongs to.

use mixline_protocol::size::{CELL, CELL_OFFSET, Cell, Datagram, Header, PATH_HEADER};

/// Cells of one path have one flow: a number that no two paths share by chance. It
/// is the front of the header's tag, read before the relay peels its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow(pub u64);

/// The cell inside a datagram.
#[expect(clippy::missing_panics_doc, reason = "the sizes are constant")]
#[inline]
pub fn cell_of(datagram: &mut Datagram) -> &mut Cell {
    const { assert!(CELL_OFFSET + CELL <= mixline_protocol::size::DATAGRAM) };
    #[expect(clippy::expect_used, reason = "asserted above")]
    datagram[CELL_OFFSET..]
        .first_chunk_mut()
        .expect("a datagram holds a cell")
}

/// The path header at the front of the cell inside a datagram.
#[expect(clippy::missing_panics_doc, reason = "the sizes are constant")]
#[must_use]
#[inline]
pub fn header_of(datagram: &Datagram) -> &Header {
    const { assert!(CELL_OFFSET + PATH_HEADER <= mixline_protocol::size::DATAGRAM) };
    #[expect(clippy::expect_used, reason = "asserted above")]
    datagram[CELL_OFFSET..]
        .first_chunk()
        .expect("a datagram holds a header")
}

/// Which flow a header belongs to.
#[must_use]
#[inline]
pub fn flow_of(header: &Header) -> Flow {
    /// Where gamma, the tag over the rest of the header, stands: after alpha.
    const GAMMA: usize = 32;
    let mut front = [0; 8];
    front.copy_from_slice(&header[GAMMA..GAMMA + 8]);
    Flow(u64::from_be_bytes(front))
}
