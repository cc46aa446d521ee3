//! The frames within a session's payload: IP packets, directory messages, control.
//!
//! A payload carries 1040 bytes of frames (big-endian):
//!
//! ```text
//! frame     kind 1 | length 2 | body (length bytes)
//! fragment  id 4 | offset 2 | total 2 | data          (the body of kinds 2 and 5)
//!
//! kind 0  padding: this byte and all after it are zero
//! kind 1  a whole packet            kind 2  a fragment of a packet
//! kind 3  control, see session::control
//! kind 4  a whole message           kind 5  a fragment of a message
//! kind 6  index 1 | count 1: the cell is that one of so many copies; stands first
//! ```
//!
//! Small packets share a cell and large ones span cells, as in RFC 9347; unlike there, every
//! cell stands alone, because paths reorder. A fragment's `offset` counts from the beginning of
//! its packet, `total` is the packet's length; an `id` is not used again by the same sender
//! within [`REASSEMBLY_TIME`].

mod frame;
mod packer;
mod reassembly;

pub use frame::{
    COPY_FRAME, Copy, FRAGMENT_HEADER, FRAME_HEADER, Fragment, Frame, FrameWriter, Frames,
    MAX_COPIES, MAX_MESSAGE, MAX_PACKET, frames,
};
pub use packer::{CellSink, FragmentIds, MIN_FRAGMENT_SPACE, Packer};
pub use reassembly::{
    Delivered, MAX_PARTIALS, MAX_PIECES, REASSEMBLY_MEMORY, REASSEMBLY_TIME, Reassembly,
    ReassemblyCounters,
};
