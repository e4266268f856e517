//! Runs a stream of jobs with bounded concurrency and answers each as soon as it has ended.
//!
//! Knows neither the store nor the form of an answer, so that order, bounds and stopping are tested without either.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::types::{Error, ErrorKind, Result};

/// A line number, counted from 1, and what came of the line.
pub type Numbered<T> = (u64, Result<T>);

/// What came of a whole stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Lines that succeeded.
    pub succeeded: u64,
    /// Lines that failed.
    pub failed: u64,
    /// The kind of the first failure that was answered.
    pub first_failure: Option<ErrorKind>,
}

/// Takes jobs from `lines`, runs at most `concurrency` of them at a time, and hands each answer to `answer` in the
/// order in which they end. A line that is an error already is answered like a job that failed.
///
/// With `exit_on_error` no further line is taken after the first failure; what runs by then is brought to its end and
/// answered, because it may be durable.
///
/// # Errors
///
/// Only those of `answer`: an answer that cannot be given stops everything, and jobs in flight are abandoned.
pub async fn drive<J, T, F>(
    mut lines: mpsc::Receiver<Numbered<J>>,
    concurrency: NonZeroUsize,
    exit_on_error: bool,
    job: impl Fn(J) -> F,
    mut answer: impl FnMut(Numbered<T>) -> Result<()>,
) -> Result<Outcome>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut outcome = Outcome::default();
    let mut running = JoinSet::new();
    let mut numbers = HashMap::new();
    let mut open = true;
    while open || !running.is_empty() {
        let ended = tokio::select! {
            // What has ended is answered before anything new begins.
            biased;
            Some(joined) = running.join_next_with_id() => {
                let (id, result) = match joined {
                    Ok((id, result)) => (id, result),
                    Err(error) => {
                        let id = error.id();
                        (id, Err(Error::new(ErrorKind::Internal, "the transaction's task ended early").with_source(error)))
                    }
                };
                numbers.remove(&id).map(|number| (number, result))
            }
            line = lines.recv(), if open && running.len() < concurrency.get() => match line {
                Some((number, Ok(work))) => {
                    numbers.insert(running.spawn(job(work)).id(), number);
                    None
                }
                Some((number, Err(error))) => Some((number, Err(error))),
                None => {
                    open = false;
                    None
                }
            },
        };
        if let Some((number, result)) = ended {
            match &result {
                Ok(_) => outcome.succeeded += 1,
                Err(error) => {
                    outcome.failed += 1;
                    outcome.first_failure.get_or_insert(error.kind());
                    open &= !exit_on_error;
                }
            }
            answer((number, result))?;
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    fn lines(jobs: impl IntoIterator<Item = Result<u64>>) -> mpsc::Receiver<Numbered<u64>> {
        let jobs: Vec<_> = jobs.into_iter().collect();
        let (sender, receiver) = mpsc::channel(jobs.len().max(1));
        for (at, job) in jobs.into_iter().enumerate() {
            sender.try_send((at as u64 + 1, job)).unwrap();
        }
        receiver
    }

    fn width(concurrency: usize) -> NonZeroUsize {
        NonZeroUsize::new(concurrency).unwrap()
    }

    fn refused() -> Error {
        Error::new(ErrorKind::Conflict, "refused")
    }

    #[tokio::test]
    async fn one_at_a_time_keeps_the_order() {
        let mut answers = Vec::new();
        let job = |n: u64| async move {
            tokio::time::sleep(Duration::from_millis(5 - n)).await;
            Ok(n * 10)
        };
        let outcome = drive(lines((1..5).map(Ok)), width(1), false, job, |(line, result)| {
            answers.push((line, result?));
            Ok(())
        });
        assert_eq!(outcome.await.unwrap(), Outcome { succeeded: 4, failed: 0, first_failure: None });
        assert_eq!(answers, [(1, 10), (2, 20), (3, 30), (4, 40)]);
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_ends() {
        // Each job waits for the one after it, so they can only end backwards, and only if all run at once.
        let gates: Arc<Vec<Semaphore>> = Arc::new((0..6).map(|_| Semaphore::new(0)).collect());
        gates[5].add_permits(1);
        let job = |n: u64| {
            let gates = gates.clone();
            async move {
                gates[n as usize].acquire().await.unwrap().forget();
                gates[n as usize - 1].add_permits(1);
                Ok(n)
            }
        };
        let mut answers = Vec::new();
        let driven = drive(lines((1..6).map(Ok)), width(5), false, job, |(line, result)| {
            answers.push((line, result?));
            Ok(())
        });
        driven.await.unwrap();
        assert_eq!(answers, [(5, 5), (4, 4), (3, 3), (2, 2), (1, 1)]);
    }

    #[tokio::test]
    async fn concurrency_is_bounded() {
        let now = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let job = |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        };
        drive(lines((0..40).map(Ok)), width(3), false, job, |_| Ok(())).await.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn failures_are_answered_and_counted() {
        let jobs = [Ok(1), Err(Error::new(ErrorKind::Invalid, "no JSON")), Ok(2), Ok(3)];
        let job = |n| async move { if n == 2 { Err(refused()) } else { Ok(n) } };
        let mut kinds = Vec::new();
        let outcome = drive(lines(jobs), width(1), false, job, |(line, result)| {
            kinds.push((line, result.err().map(|error| error.kind())));
            Ok(())
        });
        let first_failure = Some(ErrorKind::Invalid);
        assert_eq!(outcome.await.unwrap(), Outcome { succeeded: 2, failed: 2, first_failure });
        assert_eq!(kinds, [(1, None), (2, first_failure), (3, Some(ErrorKind::Conflict)), (4, None)]);
    }

    #[tokio::test]
    async fn exit_on_error_brings_what_runs_to_its_end() {
        let gate = Arc::new(Semaphore::new(0));
        let job = |n| {
            let gate = gate.clone();
            async move {
                match n {
                    1 => gate.acquire().await.unwrap().forget(),
                    2 => return Err(refused()),
                    _ => {}
                }
                Ok(n)
            }
        };
        let mut answers = Vec::new();
        let outcome = drive(lines((1..100).map(Ok)), width(2), true, job, |(line, result)| {
            if result.is_err() {
                gate.add_permits(1);
            }
            answers.push(line);
            Ok(())
        });
        let first_failure = Some(ErrorKind::Conflict);
        assert_eq!(outcome.await.unwrap(), Outcome { succeeded: 1, failed: 1, first_failure });
        assert_eq!(answers, [2, 1]);
    }

    #[tokio::test]
    async fn a_job_that_panics_is_answered() {
        let job = |n| async move { if n == 1 { panic!("a bug") } else { Ok(n) } };
        let mut failed = Vec::new();
        let driven = drive(lines([Ok(1), Ok(2)]), width(1), false, job, |(line, result)| {
            failed.extend(result.err().map(|error| (line, error.kind())));
            Ok(())
        });
        driven.await.unwrap();
        assert_eq!(failed, [(1, ErrorKind::Internal)]);
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_given_stops() {
        let driven = drive(lines((1..9).map(Ok)), width(1), false, |n| async move { Ok(n) }, |_| Err(refused()));
        assert_eq!(driven.await.unwrap_err().kind(), ErrorKind::Conflict);
    }
}
