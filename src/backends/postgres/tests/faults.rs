//! Connections that are lost, servers that die, processes that come between.

use super::proxy::{Loss, Proxy};
use super::server::Server;
use super::*;

fn is_unavailable<T>(result: &Result<T, BackendError>) -> bool {
    matches!(result, Err(BackendError::Unavailable { .. }))
}

/// Ends every connection to a database, as an administrator does.
fn terminate(url: &str) {
    let all = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database()
               and pid <> pg_backend_pid()";
    Server::shared().sql(database_of(url), all);
}

#[tokio::test]
async fn a_terminated_connection_is_replaced() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    write(&backend, &stamp(1), &[], [put("a", 1, "1")]).await.unwrap();
    for position in 2..5 {
        // Every connection of the pool is there to go stale.
        let reads = (0..8).map(|_| get(&backend, position - 1, "a"));
        for read in futures_of(reads).await {
            assert!(read.unwrap().is_some());
        }
        terminate(&url);
        assert!(get(&backend, position - 1, "a").await.unwrap().is_some());
        terminate(&url);
        write(&backend, &stamp(position), &[], [put("a", position, "n")]).await.unwrap();
        terminate(&url);
        maintain(&backend, position).await;
        assert_eq!(get(&backend, position, "a").await.unwrap().unwrap().0, position);
    }
    terminate(&url);
    backend.clear().await.unwrap();
    assert_eq!(backend.stamp().await.unwrap(), None);
}

/// All of them at once.
async fn futures_of<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        calls.retain_mut(|call| match call.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn a_connection_lost_within_a_write_changes_nothing() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    write(&backend, &stamp(1), &[], [put("a", 1, "1"), put("b", 1, "1")]).await.unwrap();
    let changes =
        || [delete_range("", 2)].into_iter().chain((0..20_000).map(|row| put(format!("c{row:08}"), 2, [7; 300])));
    let cut = changes().enumerate().map(|(number, change)| {
        // Some chunks are in the server's hands by then.
        if number == 18_000 {
            terminate(&url);
        }
        Ok(change)
    });
    let lost = backend.write(&stamp(2), &[], Box::new(cut)).await;
    assert!(is_unavailable(&lost), "{lost:?}");
    assert_eq!(backend.stamp().await.unwrap(), Some(stamp(1)));
    assert_eq!(dump(&backend, 1).await.unwrap().len(), 2);
    write(&backend, &stamp(2), &[1], changes()).await.unwrap();
    assert_eq!(dump(&backend, 2).await.unwrap().len(), 20_000);
    assert_eq!(dump(&backend, 1).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_killed_server_is_unavailable_until_it_is_back() {
    // With fsync: what was acknowledged must be there after the kill.
    let server = Server::start(&[]);
    let url = server.database();
    let backend = connect(&url, "test").await;
    write(&backend, &stamp(1), &[], [put("a", 1, "1")]).await.unwrap();
    let killing = std::iter::once_with(|| {
        server.kill();
        Ok(put("a", 2, "2"))
    });
    let lost = backend.write(&stamp(2), &[], Box::new(killing)).await;
    assert!(is_unavailable(&lost), "{lost:?}");
    assert!(is_unavailable(&get(&backend, 1, "a").await));
    assert!(is_unavailable(&write(&backend, &stamp(2), &[], []).await));
    server.restart();
    assert_eq!(get(&backend, 1, "a").await.unwrap(), Some((1, b"1"[..].into())));
    write(&backend, &stamp(2), &[], [put("a", 2, "2")]).await.unwrap();
    // A server that ends in good order, too.
    server.stop();
    assert!(is_unavailable(&backend.maintain(Position(2), &[]).await) || is_unavailable(&get(&backend, 2, "a").await));
    server.restart();
    assert_eq!(get(&backend, 2, "a").await.unwrap(), Some((2, b"2"[..].into())));
    assert_eq!(backend.stamp().await.unwrap(), Some(stamp(2)));
}

#[tokio::test]
async fn a_commit_without_an_answer_is_looked_up() {
    let url = Server::shared().database();
    let proxy = Proxy::to(&url);
    let backend = connect(&proxy.url(&url), "test").await;
    write(&backend, &stamp(1), &[], [put("a", 1, "1")]).await.unwrap();

    // Carried out, and the server still there: the write is what it says it is.
    proxy.lose(Loss::Answer);
    write(&backend, &stamp(2), &[1], [put("a", 2, "2")]).await.unwrap();
    assert_eq!(get(&backend, 1, "a").await.unwrap().unwrap().0, 1);
    assert_eq!(get(&backend, 2, "a").await.unwrap().unwrap().0, 2);

    // Lost on the way there: nothing was changed.
    proxy.lose(Loss::Commit);
    let lost = write(&backend, &stamp(3), &[], [put("a", 3, "3")]).await;
    assert!(is_unavailable(&lost), "{lost:?}");
    assert_eq!(backend.stamp().await.unwrap(), Some(stamp(2)));
    assert_eq!(get(&backend, 2, "a").await.unwrap().unwrap().0, 2);
    write(&backend, &stamp(3), &[], [put("a", 3, "3")]).await.unwrap();

    // Carried out, and no way to ask: nothing is said until there is one.
    proxy.lose(Loss::AnswerAndServer);
    let lost = write(&backend, &stamp(5), &[4], [put("a", 5, "5"), put("b", 4, "4")]).await;
    assert!(is_unavailable(&lost), "{lost:?}");
    assert!(is_unavailable(&backend.stamp().await));
    assert!(is_unavailable(&get(&backend, 3, "a").await));
    proxy.lose(Loss::None);
    assert_eq!(backend.stamp().await.unwrap(), Some(stamp(5)));
    assert_eq!(get(&backend, 5, "a").await.unwrap().unwrap().0, 5);
    assert_eq!(get(&backend, 4, "b").await.unwrap().unwrap().0, 4);
    // Who was told that it failed writes it again.
    write(&backend, &stamp(5), &[4], [put("a", 5, "5"), put("b", 4, "4")]).await.unwrap();
    assert_eq!(get(&backend, 4, "b").await.unwrap().unwrap().0, 4);
    assert!(matches!(write(&backend, &stamp(4), &[], []).await, Err(BackendError::Invalid { .. })));
    write(&backend, &stamp(6), &[], [put("a", 6, "6")]).await.unwrap();
    let again = write(&backend, &stamp(6), &[], [put("a", 6, "6")]).await;
    assert!(matches!(again, Err(BackendError::Invalid { .. })), "only a write whose answer was lost is written twice");
}

#[tokio::test]
async fn a_base_belongs_to_one_process_at_a_time() {
    let url = Server::shared().database();
    let first = try_connect(&url, "test").await.unwrap();
    write(&first, &stamp(1), &[], [put("a", 1, "1")]).await.unwrap();
    let refused = try_connect(&url, "test").await.unwrap_err();
    assert!(is_unavailable::<()>(&Err(refused.clone())) && refused.to_string().contains("in use"), "{refused}");
    let _other = try_connect(&url, "other").await.unwrap();
    let _elsewhere = try_connect(&format!("{url}?schema=elsewhere"), "test").await.unwrap();

    // The first one's connections are lost, and a second process comes before they are made again.
    assert!(get(&first, 1, "a").await.unwrap().is_some());
    terminate(&url);
    let second = connect(&url, "test").await;
    assert_eq!(second.stamp().await.unwrap(), Some(stamp(1)));
    // Nothing has changed yet, so what the first one reads is still true.
    assert_eq!(get(&first, 1, "a").await.unwrap().unwrap().0, 1);
    write(&second, &stamp(2), &[], [put("a", 2, "2"), put("b", 2, "2")]).await.unwrap();
    let found = get(&first, 1, "a").await;
    assert!(is_unavailable(&found), "{found:?}");
    assert!(is_unavailable(&write(&first, &stamp(2), &[], []).await));
    drop(second);
    assert!(matches!(get(&first, 1, "a").await, Err(BackendError::Unreadable { .. })));
    assert_eq!(first.stamp().await.unwrap(), Some(stamp(2)));
    assert_eq!(get(&first, 2, "b").await.unwrap().unwrap().0, 2);
    assert!(try_connect(&url, "test").await.is_err());
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_leaves_a_base_that_works() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    write(&backend, &stamp(1), &[], (0..5000).map(|row| put(format!("{row:05}"), 1, "1"))).await.unwrap();
    for polls in 1..40 {
        let mut call = Box::pin(async {
            if polls % 2 == 0 {
                let rows = (0..5000).map(|row| put(format!("{row:05}"), 2, "2"));
                write(&backend, &stamp(2), &[], rows).await.map(|()| 0)
            } else {
                dump(&backend, 1).await.map(|entries| entries.len())
            }
        });
        let mut left = polls;
        let ended = std::future::poll_fn(|context| {
            left -= 1;
            match call.as_mut().poll(context) {
                std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        })
        .await;
        drop(call);
        let position = backend.stamp().await.unwrap().unwrap().position.0;
        let entries = dump(&backend, position).await.unwrap();
        assert!(entries.len() == 5000 && entries.iter().all(|(_, version, _)| *version == position), "after {polls}");
        if position == 2 {
            assert!(ended.is_none_or(|ended| ended.is_ok()));
            break;
        }
    }
}
