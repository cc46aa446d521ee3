//! The names of sessions and own tails, by which they refer to one another. A key names nothing
//! once its entry is removed, and never a successor.

slotmap::new_key_type! {
    /// Names a session.
    pub struct SessionKey;

    /// Names an own tail.
    pub struct TailKey;
}
