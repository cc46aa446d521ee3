//! Reading and writing single frames.

use crate::size::FRAMES;
use crate::wire::Reader;
use crate::{Error, Result};

/// Bytes before a frame's body: kind and length.
pub const FRAME_HEADER: usize = 3;
/// Bytes before the data of a fragment: id, offset, total.
pub const FRAGMENT_HEADER: usize = 8;
/// The longest packet, bytes: the range of the IP length field.
pub const MAX_PACKET: usize = 65535;
/// The longest message, bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

pub(super) const PADDING: u8 = 0;
pub(super) const PACKET: u8 = 1;
pub(super) const PACKET_FRAGMENT: u8 = 2;
pub(super) const CONTROL: u8 = 3;
pub(super) const MESSAGE: u8 = 4;
pub(super) const MESSAGE_FRAGMENT: u8 = 5;
pub(super) const COPY: u8 = 6;
/// Bytes of the frame that says which copy a cell is.
pub const COPY_FRAME: usize = FRAME_HEADER + 2;
/// At most so many copies of one cell.
pub const MAX_COPIES: u8 = 16;

const MALFORMED: Error = Error::Malformed { what: "frame" };

/// One frame, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole IP packet.
    Packet(&'a [u8]),
    /// A part of an IP packet.
    PacketFragment(Fragment<'a>),
    /// A control frame: see [`crate::session::Control`].
    Control(&'a [u8]),
    /// A whole message.
    Message(&'a [u8]),
    /// A part of a message.
    MessageFragment(Fragment<'a>),
    /// The cell is one of several copies. It stands first, or not at all.
    Copy(Copy),
}

/// Which copy of a cell one is. Copies are sealed under successive counters, so that no two are equal on
/// the wire: what the others' counters are follows from this, and whether one of them has come.
#[derive(Debug, Clone, core::marker::Copy, PartialEq, Eq)]
pub struct Copy {
    /// This one, from 0.
    pub index: u8,
    /// How many there are, at most [`MAX_COPIES`].
    pub count: u8,
}

impl Copy {
    fn decode(body: &[u8]) -> Result<Self> {
        match *body {
            [index, count] if index < count && count <= MAX_COPIES => Ok(Self { index, count }),
            _ => Err(MALFORMED),
        }
    }

    /// The counters of the other copies of a cell that has come under `counter`.
    pub fn others(self, counter: u64) -> impl Iterator<Item = u64> {
        let (index, count) = (u64::from(self.index), u64::from(self.count));
        // A counter that is smaller than its place would have been before the first.
        let first = counter.checked_sub(index);
        (0..count)
            .filter(move |other| *other != index)
            .filter_map(move |other| first?.checked_add(other))
    }

    /// The frame that stands at the beginning of a cell.
    #[must_use]
    pub fn frame(self) -> [u8; COPY_FRAME] {
        [COPY, 0, 2, self.index, self.count]
    }
}

/// A part of a packet or message.
///
/// [`frames`] yields only those that have data, end within `total`, and are not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Which packet, among the sender's packets of the last seconds.
    pub id: u32,
    /// Where the data stands in the packet.
    pub offset: u16,
    /// How long the packet is.
    pub total: u16,
    /// The part.
    pub data: &'a [u8],
}

impl<'a> Fragment<'a> {
    fn decode(body: &'a [u8]) -> Result<Self> {
        let mut body = Reader::new(body, "frame");
        let (id, offset, total) = (body.u32()?, body.u16()?, body.u16()?);
        let data = body.take(body.left())?;
        let end = usize::from(offset) + data.len();
        let whole = data.len() == usize::from(total);
        if data.is_empty() || end > usize::from(total) || whole {
            return Err(MALFORMED);
        }
        Ok(Self {
            id,
            offset,
            total,
            data,
        })
    }

    /// The eight bytes before the data.
    fn header(&self) -> [u8; FRAGMENT_HEADER] {
        let [a, b, c, d] = self.id.to_be_bytes();
        let [e, f] = self.offset.to_be_bytes();
        let [g, h] = self.total.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// The frames of a cell, in order. After an error there are no more.
#[must_use]
pub fn frames(bytes: &[u8; FRAMES]) -> Frames<'_> {
    Frames {
        rest: bytes,
        first: true,
    }
}

/// Iterator of [`frames`].
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
    first: bool,
}

impl<'a> Frames<'a> {
    fn read(&mut self) -> Result<Option<Frame<'a>>> {
        let mut reader = Reader::new(self.rest, "frame");
        if self.rest.first().is_none_or(|kind| *kind == PADDING) {
            reader.zeros()?;
            return Ok(None);
        }
        let (kind, length) = (reader.u8()?, reader.u16()?);
        let body = reader.take(length.into())?;
        self.rest = reader.take(reader.left())?;
        let first = std::mem::replace(&mut self.first, false);
        let frame = match kind {
            PACKET => Frame::Packet(body),
            PACKET_FRAGMENT => Frame::PacketFragment(Fragment::decode(body)?),
            CONTROL => Frame::Control(body),
            MESSAGE => Frame::Message(body),
            MESSAGE_FRAGMENT => Frame::MessageFragment(Fragment::decode(body)?),
            COPY if first => Frame::Copy(Copy::decode(body)?),
            _ => return Err(MALFORMED),
        };
        if body.is_empty() {
            Err(MALFORMED)
        } else {
            Ok(Some(frame))
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.read();
        if !matches!(frame, Ok(Some(_))) {
            self.rest = &[];
        }
        frame.transpose()
    }
}

/// Writes frames one after the other into the 1040 bytes of a cell.
///
/// What the cell held before is overwritten by frames or, in [`Self::finish`], by zeros.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    cell: &'a mut [u8; FRAMES],
    used: usize,
}

impl<'a> FrameWriter<'a> {
    /// Starts at the beginning of a cell.
    pub fn new(cell: &'a mut [u8; FRAMES]) -> Self {
        Self { cell, used: 0 }
    }

    /// Goes on in a cell whose first `used` bytes hold frames.
    pub(super) fn resume(cell: &'a mut [u8; FRAMES], used: usize) -> Self {
        Self { cell, used }
    }

    /// Appends a frame if it fits; says whether it did. An empty one never does.
    #[must_use]
    pub fn push(&mut self, frame: &Frame<'_>) -> bool {
        let copy;
        let (kind, header, data) = match frame {
            Frame::Packet(data) => (PACKET, None, *data),
            Frame::PacketFragment(f) => (PACKET_FRAGMENT, Some(f.header()), f.data),
            Frame::Control(data) => (CONTROL, None, *data),
            Frame::Message(data) => (MESSAGE, None, *data),
            Frame::MessageFragment(f) => (MESSAGE_FRAGMENT, Some(f.header()), f.data),
            Frame::Copy(it) => {
                copy = [it.index, it.count];
                (COPY, None, &copy[..])
            }
        };
        let header: &[u8] = header.as_ref().map_or(&[], |h| h);
        let length = header.len() + data.len();
        if data.is_empty() || FRAME_HEADER + length > self.left() {
            return false;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it fits the cell: under 1040"
        )]
        let [high, low] = (length as u16).to_be_bytes();
        for part in [&[kind, high, low], header, data] {
            self.cell[self.used..self.used + part.len()].copy_from_slice(part);
            self.used += part.len();
        }
        true
    }

    /// Bytes still free.
    #[must_use]
    pub fn left(&self) -> usize {
        FRAMES - self.used
    }

    /// Bytes written.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Zeroes what is left: the cell is ready to be sealed.
    pub fn finish(self) {
        self.cell[self.used..].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(front: &[u8]) -> [u8; FRAMES] {
        let mut cell = [0; FRAMES];
        cell[..front.len()].copy_from_slice(front);
        cell
    }

    #[test]
    fn layout() {
        let mut bytes = [0xAA; FRAMES];
        let mut writer = FrameWriter::new(&mut bytes);
        let fragment = Fragment {
            id: 0x0102_0304,
            offset: 0x0506,
            total: 0x0708,
            data: b"xy",
        };
        assert!(writer.push(&Frame::Packet(b"abc")));
        assert!(writer.push(&Frame::PacketFragment(fragment)));
        assert!(writer.push(&Frame::Control(b"c")));
        assert!(writer.push(&Frame::Message(b"m")));
        assert!(writer.push(&Frame::MessageFragment(fragment)));
        writer.finish();
        let fragment_body = b"\x00\x0a\x01\x02\x03\x04\x05\x06\x07\x08xy";
        let mut want = b"\x01\x00\x03abc\x02".to_vec();
        want.extend_from_slice(fragment_body);
        want.extend_from_slice(b"\x03\x00\x01c\x04\x00\x01m\x05");
        want.extend_from_slice(fragment_body);
        assert_eq!(bytes, cell(&want));
        let read: Vec<_> = frames(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            read,
            [
                Frame::Packet(b"abc"),
                Frame::PacketFragment(fragment),
                Frame::Control(b"c"),
                Frame::Message(b"m"),
                Frame::MessageFragment(fragment),
            ]
        );
    }

    #[test]
    fn what_is_refused() {
        let cases: [(&str, &[u8]); 12] = [
            ("unknown kind", b"\x07\x00\x01x"),
            ("copy beyond the last", b"\x06\x00\x02\x02\x02"),
            ("too many copies", b"\x06\x00\x02\x00\x11"),
            ("copy that is longer", b"\x06\x00\x03\x00\x02\x00"),
            ("empty packet", b"\x01\x00\x00"),
            ("empty control", b"\x03\x00\x00"),
            ("longer than the cell", b"\x01\x04\x0ex"),
            ("something in the padding", b"\x00\x00\x01"),
            (
                "fragment without its header",
                b"\x02\x00\x07\0\0\0\x01\0\0\x01",
            ),
            ("fragment without data", b"\x02\x00\x08\0\0\0\x01\0\0\0\x01"),
            (
                "fragment past its total",
                b"\x02\x00\x0a\0\0\0\x01\0\x01\0\x02xy",
            ),
            (
                "fragment that is all",
                b"\x02\x00\x0a\0\0\0\x01\0\0\0\x02xy",
            ),
        ];
        for (what, front) in cases {
            let bytes = cell(front);
            let mut all = frames(&bytes);
            assert!(all.next().expect(what).is_err(), "{what}");
            assert!(all.next().is_none(), "{what}: nothing after an error");
        }
    }

    #[test]
    fn a_copy_stands_first_and_tells_where_the_others_are() {
        let copy = Copy { index: 1, count: 3 };
        let mut front = copy.frame().to_vec();
        front.extend_from_slice(b"\x01\x00\x01x");
        let bytes = cell(&front);
        let read: Vec<_> = frames(&bytes).map(Result::unwrap).collect();
        assert_eq!(read, [Frame::Copy(copy), Frame::Packet(b"x")]);
        assert_eq!(copy.others(7).collect::<Vec<_>>(), [6, 8]);
        assert_eq!(copy.others(0).count(), 0, "there was none before");
        let mut late = b"\x01\x00\x01x".to_vec();
        late.extend_from_slice(&copy.frame());
        assert!(frames(&cell(&late)).nth(1).unwrap().is_err());
        let mut written = [0; FRAMES];
        let mut writer = FrameWriter::new(&mut written);
        assert!(writer.push(&Frame::Copy(copy)));
        assert_eq!(written[..COPY_FRAME], copy.frame());
    }

    #[test]
    fn a_full_cell_needs_no_padding() {
        let body = [7; FRAMES - FRAME_HEADER];
        let mut bytes = [0; FRAMES];
        let mut writer = FrameWriter::new(&mut bytes);
        assert!(!writer.push(&Frame::Packet(&[7; FRAMES - FRAME_HEADER + 1])));
        assert!(!writer.push(&Frame::Packet(b"")));
        assert!(writer.push(&Frame::Packet(&body)));
        assert_eq!(writer.left(), 0);
        writer.finish();
        let read: Vec<_> = frames(&bytes).collect();
        assert_eq!(read, [Ok(Frame::Packet(&body))]);
    }

    #[test]
    fn a_cell_may_end_within_a_header_only_as_padding() {
        let mut bytes = [0; FRAMES];
        let mut writer = FrameWriter::new(&mut bytes);
        assert!(writer.push(&Frame::Packet(&[7; FRAMES - FRAME_HEADER - 2])));
        writer.finish();
        assert_eq!(frames(&bytes).count(), 1);
        bytes[FRAMES - 2] = PACKET;
        assert!(frames(&bytes).nth(1).unwrap().is_err());
    }
}
