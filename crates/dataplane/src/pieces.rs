//! Packets that came in several frames, put together.

use af_xdp::Frame;

use crate::pools::Pools;

/// What of a ring's packets is still to come.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    state: State,
    /// Frames as they came, for the length of a call.
    came: Vec<Frame>,
}

#[derive(Debug, Default)]
enum State {
    /// The next frame begins a packet.
    #[default]
    Begin,
    /// It goes on with this one.
    Join(Frame),
    /// It goes on with one that is lost.
    Lose,
}

impl Pieces {
    /// Frames held back until the rest of their packet is here.
    pub(crate) fn len(&self) -> usize {
        usize::from(matches!(self.state, State::Join(_)))
    }

    /// Gives up a packet whose rest has not come.
    pub(crate) fn give_up(&mut self, pools: &mut Pools) {
        if let State::Join(whole) = std::mem::take(&mut self.state) {
            pools.give(whole);
        }
    }

    /// Makes each packet of `frames` a single frame, in their order. One for which there is no
    /// room is lost, and `lost` is shown its beginning.
    #[inline]
    pub(crate) fn join(
        &mut self,
        frames: &mut Vec<Frame>,
        pools: &mut Pools,
        lost: impl FnMut(&Frame),
    ) {
        let ordinary = matches!(self.state, State::Begin) && !frames.iter().any(Frame::continues);
        if !ordinary {
            self.join_all(frames, pools, lost);
        }
    }

    #[cold]
    fn join_all(
        &mut self,
        frames: &mut Vec<Frame>,
        pools: &mut Pools,
        mut lost: impl FnMut(&Frame),
    ) {
        self.came.append(frames);
        for piece in self.came.drain(..) {
            let goes_on = piece.continues();
            let state = match std::mem::take(&mut self.state) {
                State::Begin if !goes_on => {
                    frames.push(piece);
                    continue;
                }
                State::Begin => match pools.take_large() {
                    Some(whole) => join(whole, &piece, pools, &mut lost),
                    None => {
                        lost(&piece);
                        State::Lose
                    }
                },
                State::Join(whole) => join(whole, &piece, pools, &mut lost),
                State::Lose => State::Lose,
            };
            pools.give(piece);
            match state {
                state if goes_on => self.state = state,
                State::Join(whole) => frames.push(whole),
                State::Begin | State::Lose => {}
            }
        }
    }
}

/// Puts a piece behind what is there of its packet.
fn join(
    mut whole: Frame,
    piece: &Frame,
    pools: &mut Pools,
    lost: &mut impl FnMut(&Frame),
) -> State {
    let (head, length) = (whole.head(), whole.len());
    if whole.set_range(head, length + piece.len())
        && let Some(room) = whole.bytes_mut().get_mut(length..)
    {
        room.copy_from_slice(piece.bytes());
        return State::Join(whole);
    }
    lost(&whole);
    pools.give(whole);
    State::Lose
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::tests::{free, packet, pools};

    /// A packet of that length in pieces as the kernel makes them.
    fn pieces(pools: &mut Pools, packet: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for part in packet.chunks(1792) {
            let mut frame = pools.take(part.len()).unwrap();
            assert!(frame.copy_from(part));
            frame.set_continues(true);
            frames.push(frame);
        }
        frames.last_mut().unwrap().set_continues(false);
        frames
    }

    #[test]
    fn packets_are_whole_and_in_their_order_wherever_the_calls_cut_them() {
        let mut pools = pools(64, 64);
        let lengths = [60, 1793, 1500, 9018, 16128, 42];
        for call in 1..=22 {
            let (mut joined, mut pieces_of) = (Pieces::default(), Vec::new());
            for length in lengths {
                pieces_of.extend(pieces(&mut pools, &packet(length)));
            }
            let mut got = Vec::new();
            while !pieces_of.is_empty() {
                let mut batch: Vec<Frame> = pieces_of.drain(..call.min(pieces_of.len())).collect();
                joined.join(&mut batch, &mut pools, |_| panic!("none is lost"));
                for frame in batch {
                    got.push(frame.bytes().to_vec());
                    pools.give(frame);
                }
            }
            assert_eq!(got, lengths.map(packet), "{call} frames a call");
            assert_eq!((joined.len(), free(&pools)), (0, [64, 64]));
        }
    }

    #[test]
    fn a_packet_without_room_is_lost_whole_and_told_once_and_the_next_is_not() {
        let mut pools = pools(64, 1);
        let held = pools.take_large().unwrap();
        let mut joined = Pieces::default();
        let mut frames = pieces(&mut pools, &packet(9018));
        frames.extend(pieces(&mut pools, &packet(1500)));
        let mut told = Vec::new();
        joined.join(&mut frames, &mut pools, |first| told.push(first.bytes()[..60].to_vec()));
        assert_eq!(told, [&packet(9018)[..60]]);
        assert_eq!((frames.len(), frames[0].bytes()), (1, &packet(1500)[..]));
        frames.drain(..).for_each(|frame| pools.give(frame));
        pools.give(held);
        // Longer than a large frame: told of as well.
        let mut frames = pieces(&mut pools, &packet(16129));
        joined.join(&mut frames, &mut pools, |whole| told.push(whole.bytes()[..60].to_vec()));
        assert_eq!((told.len(), frames.len(), free(&pools)), (2, 0, [64, 1]));
    }

    #[test]
    fn the_beginning_of_a_packet_is_held_until_the_rest_is_here() {
        let mut pools = pools(64, 1);
        let mut joined = Pieces::default();
        let mut frames = pieces(&mut pools, &packet(4000));
        let mut rest = frames.split_off(1);
        joined.join(&mut frames, &mut pools, |_| panic!("it has room"));
        assert_eq!((frames.len(), joined.len(), free(&pools)), (0, 1, [62, 0]));
        joined.join(&mut rest, &mut pools, |_| panic!("it has room"));
        assert_eq!((rest.len(), rest[0].bytes()), (1, &packet(4000)[..]));
        rest.drain(..).for_each(|frame| pools.give(frame));
        assert_eq!((joined.len(), free(&pools)), (0, [64, 1]));
    }
}
