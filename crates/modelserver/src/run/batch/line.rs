//! The queue order of the jobs for one model.
//!
//! Lower priority numbers go first. Within a priority, callers share the model by rows: each has a tag, the amount of
//! work it has got so far, and the caller with the lowest tag goes next. So a caller with a thousand jobs does not
//! delay the single job of another one. The jobs of one caller keep their order. A caller that returns is remembered
//! until the others have caught up with it.
//!
//! **Invariants:** this module has no clock and no lock. A job leaves exactly once, taken or dropped, and is returned
//! to the caller of the method in both cases.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    hash::{BuildHasher, Hasher},
};

use crate::run::caller::Caller;

/// How many callers one call may skip, so that it holds its lock for a bounded time.
const MOST_PASSED: usize = 128;

/// How many priorities are kept although nobody waits in them.
const LEVELS_KEPT: usize = 16;

/// Memory that a slot keeps for the next caller, in jobs.
const JOBS_KEPT: usize = 8;

/// We assign the numbers of callers, so they need no protection against chosen collisions.
#[derive(Clone, Copy, Debug, Default)]
struct Spread;

impl BuildHasher for Spread {
    type Hasher = Spreader;

    fn build_hasher(&self) -> Spreader {
        Spreader(0)
    }
}

#[derive(Debug)]
struct Spreader(u64);

impl Hasher for Spreader {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The decision about the next job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Take it.
    Take,
    /// Remove it: nobody waits for it any more.
    Drop,
    /// Leave it, and later jobs of its caller, for another time.
    Pass,
    /// Leave it and stop.
    Stop,
}

/// The jobs that left the line.
#[derive(Debug)]
pub(crate) struct Taken<J> {
    /// The jobs to run, the next one first.
    pub(crate) run: Vec<J>,
    /// The jobs that nobody waits for.
    pub(crate) dropped: Vec<J>,
}

/// A bounded line.
#[derive(Debug)]
pub(crate) struct Line<J> {
    levels: BTreeMap<u32, Level<J>>,
    limit: usize,
    len: usize,
    rows: usize,
}

#[derive(Debug)]
struct Level<J> {
    places: Vec<Place<J>>,
    free: Vec<usize>,
    of: HashMap<Caller, usize, Spread>,
    /// Every used slot once: its tag, then the order of arrival.
    turns: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// The tag of the last turn.
    now: u64,
    came: u64,
    len: usize,
}

/// The jobs of one caller.
#[derive(Debug)]
struct Place<J> {
    caller: Caller,
    jobs: VecDeque<(usize, J)>,
}

impl<J> Line<J> {
    /// An empty line in which `limit` jobs may wait.
    pub(crate) fn new(limit: usize) -> Self {
        Self { levels: BTreeMap::new(), limit, len: 0, rows: 0 }
    }

    /// The number of waiting jobs.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Their total number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The first job of each caller.
    pub(crate) fn first(&self) -> impl Iterator<Item = &J> {
        let places = self.levels.values().flat_map(|level| &level.places);
        places.filter_map(|place| place.jobs.front().map(|(_, job)| job))
    }

    /// Adds a job after those of its caller; returns it if the line is full.
    pub(crate) fn push(&mut self, level: u32, caller: Caller, rows: usize, job: J) -> Result<(), J> {
        if self.len >= self.limit {
            return Err(job);
        }
        self.levels.entry(level).or_insert_with(Level::new).push(caller, rows, job);
        self.len += 1;
        self.rows = self.rows.saturating_add(rows);
        Ok(())
    }

    /// Walks through the line in order, and applies the decision of `choose` to each job; `choose` gets the jobs taken
    /// so far and the job.
    pub(crate) fn take(&mut self, mut choose: impl FnMut(&[J], &J) -> Choice) -> Taken<J> {
        let mut taken = Taken { run: Vec::new(), dropped: Vec::new() };
        let mut rows = 0;
        for level in self.levels.values_mut() {
            if level.len > 0 && !level.take(&mut choose, &mut taken, &mut rows) {
                break;
            }
        }
        self.left(&taken, rows);
        taken
    }

    /// Removes all jobs that nobody waits for, at any position.
    pub(crate) fn sweep(&mut self, mut is_gone: impl FnMut(&J) -> bool) -> Vec<J> {
        let mut taken = Taken { run: Vec::new(), dropped: Vec::new() };
        let mut rows = 0;
        for level in self.levels.values_mut() {
            for place in &mut level.places {
                for (size, job) in std::mem::take(&mut place.jobs) {
                    if is_gone(&job) {
                        rows += size;
                        level.len -= 1;
                        taken.dropped.push(job);
                    } else {
                        place.jobs.push_back((size, job));
                    }
                }
            }
            if level.len == 0 {
                level.clear();
            }
        }
        self.left(&taken, rows);
        taken.dropped
    }

    fn left(&mut self, taken: &Taken<J>, rows: usize) {
        self.len -= taken.run.len() + taken.dropped.len();
        self.rows = self.rows.saturating_sub(rows);
        if self.levels.len() > LEVELS_KEPT {
            self.levels.retain(|_, level| level.len > 0);
        }
    }
}

impl<J> Level<J> {
    fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            of: HashMap::default(),
            turns: BinaryHeap::new(),
            now: 0,
            came: 0,
            len: 0,
        }
    }

    fn push(&mut self, caller: Caller, rows: usize, job: J) {
        self.len += 1;
        let place = match self.of.get(&caller) {
            Some(place) => *place,
            None => self.admit(caller),
        };
        self.places[place].jobs.push_back((rows, job));
    }

    /// A slot for a new caller. Its tag begins at the current level of the others.
    fn admit(&mut self, caller: Caller) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { caller, jobs: VecDeque::new() });
            self.places.len() - 1
        });
        self.places[place].caller = caller;
        self.of.insert(caller, place);
        self.turn(self.now, place);
        place
    }

    fn turn(&mut self, tag: u64, place: usize) {
        self.came += 1;
        self.turns.push(Reverse((tag, self.came, place)));
    }

    /// `false`: `choose` stops.
    fn take(&mut self, choose: &mut impl FnMut(&[J], &J) -> Choice, taken: &mut Taken<J>, rows: &mut usize) -> bool {
        let mut passed = Vec::new();
        let mut goes_on = true;
        while goes_on && self.len > 0 && passed.len() < MOST_PASSED {
            let Some(Reverse((tag, came, place))) = self.turns.pop() else { break };
            let jobs = &mut self.places[place].jobs;
            let choice = match jobs.front() {
                Some((_, job)) => choose(&taken.run, job),
                None => {
                    // The others have caught up with it: nothing needs to be remembered.
                    self.now = self.now.max(tag);
                    self.dismiss(place);
                    continue;
                }
            };
            match choice {
                Choice::Take | Choice::Drop => {
                    let Some((size, job)) = jobs.pop_front() else { continue };
                    self.len -= 1;
                    *rows += size;
                    if choice == Choice::Take {
                        taken.run.push(job);
                        self.now = self.now.max(tag);
                        self.turn(tag.saturating_add(u64::try_from(size.max(1)).unwrap_or(u64::MAX)), place);
                    } else {
                        taken.dropped.push(job);
                        self.turns.push(Reverse((tag, came, place)));
                    }
                }
                Choice::Pass => passed.push(Reverse((tag, came, place))),
                Choice::Stop => {
                    self.turns.push(Reverse((tag, came, place)));
                    goes_on = false;
                }
            }
        }
        self.turns.extend(passed);
        if self.len == 0 {
            self.clear();
        }
        goes_on
    }

    /// Nobody waits: all callers begin equal again.
    fn clear(&mut self) {
        for Reverse((_, _, place)) in self.turns.drain() {
            self.places[place].jobs.shrink_to(JOBS_KEPT);
            self.free.push(place);
        }
        self.of.clear();
        self.now = 0;
    }

    fn dismiss(&mut self, place: usize) {
        let Place { caller, jobs } = &mut self.places[place];
        jobs.shrink_to(JOBS_KEPT);
        self.of.remove(caller);
        self.free.push(place);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One job of a test: its level, its caller, its place among all, its rows.
    type Named = (u32, u64, usize, usize);

    fn push(line: &mut Line<Named>, job: Named) -> bool {
        let (level, caller, _, rows) = job;
        line.push(level, Caller(caller), rows, job).is_ok()
    }

    fn all(line: &mut Line<Named>) -> Vec<Named> {
        line.take(|_, _| Choice::Take).run
    }

    #[test]
    fn one_job_does_not_wait_behind_a_thousand_of_another_caller() {
        let mut line = Line::new(2000);
        for place in 0..1000 {
            assert!(push(&mut line, (0, 1, place, 1)));
        }
        line.take(|run, _| if run.len() < 500 { Choice::Take } else { Choice::Stop });
        assert!(push(&mut line, (0, 2, 1000, 1)));
        let next = line.take(|run, _| if run.len() < 2 { Choice::Take } else { Choice::Stop }).run;
        assert!(next.contains(&(0, 2, 1000, 1)), "{next:?}");
    }

    #[test]
    fn callers_share_by_rows_and_not_by_jobs() {
        let mut line = Line::new(2000);
        for place in 0..640 {
            assert!(push(&mut line, (0, 1, place, 1)));
        }
        for place in 0..10 {
            assert!(push(&mut line, (0, 2, place, 64)));
        }
        let first = line.take(|run, _| if run.len() < 260 { Choice::Take } else { Choice::Stop }).run;
        let large = first.iter().filter(|job| job.1 == 2).count();
        assert!((4..=5).contains(&large), "{large} jobs of 64 rows beside {} of one", first.len() - large);
    }

    #[test]
    fn a_lower_level_goes_first_whoever_came_before() {
        let mut line = Line::new(10);
        for (place, level) in [3, 1, 2, 1].into_iter().enumerate() {
            assert!(push(&mut line, (level, 7, place, 1)));
        }
        let order: Vec<_> = all(&mut line).iter().map(|job| (job.0, job.2)).collect();
        assert_eq!(order, [(1, 1), (1, 3), (2, 2), (3, 0)]);
    }

    #[test]
    fn who_is_passed_over_keeps_its_turn() {
        let mut line = Line::new(10);
        for job in [(0, 1, 0, 9), (0, 2, 1, 1), (0, 1, 2, 1)] {
            assert!(push(&mut line, job));
        }
        let taken = line.take(|_, job| if job.3 > 1 { Choice::Pass } else { Choice::Take });
        assert_eq!(taken.run, [(0, 2, 1, 1)], "nor does a later job of the same caller overtake");
        assert!(push(&mut line, (0, 3, 3, 1)));
        assert_eq!(all(&mut line)[0], (0, 1, 0, 9));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { level: u32, caller: u64, rows: usize },
        Take { most: usize, passes: u64, drops: usize },
        Sweep { every: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let push = (0..3u32, 0..6u64, 1..9usize).prop_map(|(level, caller, rows)| Step::Push { level, caller, rows });
        let take = (0..6usize, 0..7u64, 2..9usize).prop_map(|(most, passes, drops)| Step::Take { most, passes, drops });
        let sweep = (2..5usize).prop_map(|every| Step::Sweep { every });
        prop::collection::vec(prop_oneof![6 => push, 3 => take, 1 => sweep], 1..200)
    }

    proptest! {
        #[test]
        fn no_job_is_lost_doubled_or_overtaken_by_its_callers_later_ones(steps in steps(), limit in 1..40usize) {
            let mut line = Line::new(limit);
            let mut waiting: Vec<Named> = Vec::new();
            for (place, step) in steps.into_iter().enumerate() {
                let (run, dropped, swept) = match step {
                    Step::Push { level, caller, rows } => {
                        let job = (level, caller, place, rows);
                        let room = waiting.len() < limit;
                        prop_assert_eq!(push(&mut line, job), room);
                        if room {
                            waiting.push(job);
                        }
                        (Vec::new(), Vec::new(), Vec::new())
                    }
                    Step::Take { most, passes, drops } => {
                        let taken = line.take(|run, job| match job {
                            _ if run.len() >= most => Choice::Stop,
                            (_, caller, ..) if *caller == passes => Choice::Pass,
                            (_, _, place, _) if place % drops == 0 => Choice::Drop,
                            _ => Choice::Take,
                        });
                        (taken.run, taken.dropped, Vec::new())
                    }
                    Step::Sweep { every } => (Vec::new(), Vec::new(), line.sweep(|job| job.2 % every == 0)),
                };
                // What a caller got in this step came before all that it still has in the line.
                for job in run.iter().chain(&dropped) {
                    let first = waiting.iter().position(|other| other == job);
                    prop_assert!(first.is_some(), "{:?} was not there", job);
                    waiting.remove(first.unwrap());
                    prop_assert!(!waiting.iter().any(|other| other.0 == job.0 && other.1 == job.1 && other.2 < job.2 && !dropped.contains(other) && !run.contains(other)));
                }
                for list in [&run, &dropped] {
                    for (at, job) in list.iter().enumerate() {
                        prop_assert!(!list[at..].iter().any(|later| later.0 == job.0 && later.1 == job.1 && later.2 < job.2));
                    }
                }
                for job in &swept {
                    let place = waiting.iter().position(|other| other == job);
                    prop_assert!(place.is_some());
                    waiting.remove(place.unwrap());
                }
                prop_assert_eq!(line.len(), waiting.len());
                prop_assert_eq!(line.rows(), waiting.iter().map(|job| job.3).sum::<usize>());
            }
            let mut rest = all(&mut line);
            rest.sort_by_key(|job| job.2);
            prop_assert_eq!(rest, waiting);
        }

        #[test]
        fn callers_that_always_have_more_differ_by_less_than_two_jobs(sizes in prop::collection::vec(1..50usize, 2..6), takes in 1..60usize) {
            let mut line = Line::new(10_000);
            for (caller, rows) in sizes.iter().enumerate() {
                for place in 0..200 {
                    push(&mut line, (0, u64::try_from(caller).unwrap(), place, *rows));
                }
            }
            let mut got = vec![0usize; sizes.len()];
            for _ in 0..takes {
                for job in line.take(|run, _| if run.is_empty() { Choice::Take } else { Choice::Stop }).run {
                    got[usize::try_from(job.1).unwrap()] += job.3;
                }
            }
            let most = sizes.iter().max().unwrap() * 2;
            prop_assert!(got.iter().max().unwrap() - got.iter().min().unwrap() <= most, "{:?}", got);
        }
    }
}
