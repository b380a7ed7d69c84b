//! Uploads that break off and are gone on with: each byte moves and is paid once, what
//! is named is what was sent, and nobody harms another.

use super::*;
use world::sim::ClockHandle;

/// A client's way to the place, with limits that leave no byte to spare.
struct Place {
    disk: HostileDisk,
    clock: Arc<SkewedClock>,
    time: ClockHandle,
    meter: Arc<Meter>,
    objects: Arc<Objects>,
}

impl Place {
    async fn open(seed: u64, limit_bytes: u64) -> Self {
        let disk = HostileDisk::new(seed);
        let (clock, time) = SkewedClock::pair(NOW_MS);
        let rows = HostileDisk::new(seed);
        let store =
            RedbStore::open(rows.handle(), "store", clock.clone() as Arc<dyn NodeClock>).await.unwrap();
        let quota =
            Quota { ingress_bytes: Some(limit_bytes), storage_bytes: Some(limit_bytes), ..Quota::default() };
        let row = TenantRow { name: "lab".into(), quota: Some(quota), ..TenantRow::default() };
        store.commit(Commit::new().put(proto::keys::tenant("lab"), row.encode_to_vec())).await.unwrap();
        let (meter, _due) = Meter::new(store as Arc<dyn Store>, clock.clone());
        let objects = Self::start(&disk, &clock, &meter, None).await;
        Self { disk, clock, time, meter, objects }
    }

    async fn start(
        disk: &HostileDisk,
        clock: &Arc<SkewedClock>,
        meter: &Arc<Meter>,
        reign: Option<u64>,
    ) -> Arc<Objects> {
        let signer = Signer::new(b"key");
        Objects::open(disk.handle(), None, clock.clone(), signer, Arc::clone(meter), 60_000, reign)
            .await
            .unwrap()
    }

    async fn restart(&mut self, reign: Option<u64>) {
        self.objects = Self::start(&self.disk, &self.clock, &self.meter, reign).await;
    }

    fn url(&self, data: &[u8]) -> String {
        self.objects.signed(Method::Put, Mover::Client, "lab", &digest(data), data.len() as u64)
    }

    fn door(&self) -> Door {
        Door(Arc::clone(&self.objects))
    }

    async fn arrived(&self, data: &[u8]) -> Result<Arrived, TransferError> {
        self.door().arrived(&self.url(data), data.len() as u64).await
    }

    /// Opens an upload of the bytes from there on.
    async fn begin(&self, data: &[u8], from: usize) -> Result<Box<dyn ObjectSink>, TransferError> {
        let (from, total) = (from as u64, data.len() as u64);
        self.door().begin_put(&self.url(data), Some(Piece { from, to: total, total })).await
    }

    /// Sends these bytes, and is gone.
    async fn break_off(&self, data: &[u8], span: std::ops::Range<usize>) {
        let mut sink = self.begin(data, span.start).await.unwrap();
        send(&mut *sink, &data[span]).await.unwrap();
    }

    /// Sends the rest.
    async fn go_on(&self, data: &[u8], from: usize) -> Result<Arrived, TransferError> {
        let mut sink = self.begin(data, from).await?;
        send(&mut *sink, &data[from..]).await?;
        sink.finish().await
    }

    async fn has(&self, data: &[u8]) -> bool {
        self.objects.has("lab", &digest(data), data.len() as u64).await
    }

    /// Whether so much more fits beside what was paid and is kept.
    async fn fits(&self, bytes: u64) -> bool {
        let url = self.objects.signed(Method::Put, Mover::Client, "lab", &digest(b"x"), bytes);
        self.door().begin_put(&url, None).await.is_ok()
    }
}

async fn send(sink: &mut dyn ObjectSink, data: &[u8]) -> Result<(), TransferError> {
    for piece in data.chunks(70_000) {
        sink.write(Bytes::copy_from_slice(piece)).await?;
    }
    Ok(())
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 3 % 253) as u8 ^ seed).collect()
}

fn refused(result: Result<impl std::fmt::Debug, TransferError>, status: u16) {
    match result {
        Err(TransferError::Refused { status: found, .. }) if found == status => {}
        other => panic!("{other:?}"),
    }
}

const LEN: usize = 3_000_000;

#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off_and_pays_each_byte_once() {
    let place = Place::open(1, LEN as u64 + 10).await;
    let data = bytes(1, LEN);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(0));
    // Within a block, and behind one.
    let mut there = 0;
    for until in [1, 1_500_000, 2_999_999] {
        place.break_off(&data, there..until).await;
        assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(until as u64));
        assert!(!place.has(&data).await);
        there = until;
    }
    assert_eq!(place.objects.arrived_bytes("lab", &digest(&data)), 2_999_999);
    assert_eq!(place.go_on(&data, there).await.unwrap(), Arrived::Whole);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Whole);
    let url = signed(&place.objects, Method::Get, "lab", &digest(&data), LEN as u64);
    assert!(fetch(&place.objects, &url).await.unwrap() == data);
    place.objects.put_away().await;
    assert_eq!(files_in(&place.disk, INCOMING), 0);
    assert!(place.fits(10).await && !place.fits(11).await, "paid and kept once");
}

#[tokio::test]
async fn what_broke_off_outlives_the_power() {
    for seed in 0..10 {
        let mut place = Place::open(seed, 1 << 30).await;
        let data = bytes(2, 300_000);
        place.break_off(&data, 0..200_000).await;
        assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(200_000));
        // One is under way as the power fails.
        let other = bytes(3, 300_000);
        let mut sink = place.begin(&other, 0).await.unwrap();
        send(&mut *sink, &other[..150_000]).await.unwrap();
        place.disk.crash(&mut SmallRng::seed_from_u64(seed));
        drop(sink);
        place.restart(None).await;
        assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(200_000), "seed {seed}");
        assert_eq!(place.arrived(&other).await.unwrap(), Arrived::Part(0));
        assert_eq!(place.go_on(&data, 200_000).await.unwrap(), Arrived::Whole);
        assert!(place.has(&data).await);
        assert_eq!(files_in(&place.disk, INCOMING), 0);
    }
}

#[tokio::test]
async fn naming_goes_on_behind_whoever_does_not_wait() {
    let mut place = Place::open(13, 1 << 30).await;
    let data = bytes(18, LEN);
    place.break_off(&data, 0..2_000_000).await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(2_000_000));
    place.restart(None).await;
    let leave = place.objects.leave(Method::Put, &place.url(&data)).unwrap();
    let total = LEN as u64;
    let piece = Piece { from: 2_000_000, to: total, total };
    let mut upload = upload::begin(Arc::clone(&place.objects), leave, Some(piece)).await.unwrap();
    send(&mut upload, &data[2_000_000..]).await.unwrap();
    assert_eq!(Box::new(upload).finish_within(0).await.unwrap(), Arrived::Verifying);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Whole, "and not that it begins anew");
    assert!(place.has(&data).await);
}

#[tokio::test]
async fn a_part_of_other_bytes_costs_one_more_try_and_no_more() {
    let place = Place::open(3, 1 << 30).await;
    let data = bytes(4, LEN);
    let mut sink = place.begin(&data, 0).await.unwrap();
    send(&mut *sink, &bytes(5, 1_000_000)).await.unwrap();
    drop(sink);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(1_000_000));
    let wrong = place.go_on(&data, 1_000_000).await;
    assert!(matches!(wrong, Err(TransferError::Digest { .. })), "{wrong:?}");
    assert!(!place.has(&data).await);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(0));
    assert_eq!(place.go_on(&data, 0).await.unwrap(), Arrived::Whole);
}

#[tokio::test]
async fn uploads_of_the_same_bytes_at_once_do_each_other_no_harm() {
    let place = Place::open(4, 1 << 30).await;
    let data = bytes(6, LEN);
    place.break_off(&data, 0..500_000).await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(500_000));
    // Two were told so; one of them goes on.
    let mut first = place.begin(&data, 500_000).await.unwrap();
    let mut at = 500_000;
    let asked = {
        let mut asking = std::pin::pin!(place.arrived(&data));
        loop {
            tokio::select! { biased;
                asked = &mut asking => break asked,
                () = tokio::task::yield_now() => {
                    send(&mut *first, &data[at..at + 1]).await.unwrap();
                    at += 1;
                }
            }
        }
    };
    assert_eq!(asked.unwrap(), Arrived::Part(0), "it moves, and is let be");
    let second = async {
        refused(place.begin(&data, 500_000).await.map(drop), 409);
        place.go_on(&data, 0).await
    };
    let going_on = async {
        while at < LEN {
            let to = (at + 10_000).min(LEN);
            send(&mut *first, &data[at..to]).await.unwrap();
            at = to;
            tokio::task::yield_now().await;
        }
        first.finish().await
    };
    let (first, second) = tokio::join!(going_on, second);
    assert_eq!((first.unwrap(), second.unwrap()), (Arrived::Whole, Arrived::Whole));
    assert!(place.has(&data).await);
    place.objects.put_away().await;
    assert_eq!(files_in(&place.disk, INCOMING), 0);
}

#[tokio::test]
async fn one_that_fell_silent_gives_way_and_learns_it() {
    let place = Place::open(5, 1 << 30).await;
    let data = bytes(7, LEN);
    let mut silent = place.begin(&data, 0).await.unwrap();
    send(&mut *silent, &data[..1_234_567]).await.unwrap();
    place.time.jump_monotonic_ms(limits::UPLOAD_SILENT_MS);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(1_234_567));
    refused(send(&mut *silent, &data[1_234_567..]).await, 409);
    assert_eq!(place.go_on(&data, 1_234_567).await.unwrap(), Arrived::Whole);
    refused(silent.finish().await, 400);
    assert!(place.has(&data).await);
}

#[tokio::test]
async fn an_upload_may_come_in_pieces() {
    let place = Place::open(6, LEN as u64).await;
    let data = bytes(8, LEN);
    let total = LEN as u64;
    let url = place.url(&data);
    for (from, to) in [(0, 1_000_000), (1_000_000, 1_000_001), (1_000_001, total)] {
        let mut sink = place.door().begin_put(&url, Some(Piece { from, to, total })).await.unwrap();
        let span = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        send(&mut *sink, &data[span]).await.unwrap();
        let due = if to == total { Arrived::Whole } else { Arrived::Part(to) };
        assert_eq!(sink.finish().await.unwrap(), due);
    }
    assert!(place.has(&data).await);
}

#[tokio::test]
async fn a_piece_that_does_not_fit_is_refused() {
    let place = Place::open(7, 1 << 30).await;
    let data = bytes(9, 1_000);
    let url = place.url(&data);
    let begin =
        async |from, to, total| place.door().begin_put(&url, Some(Piece { from, to, total })).await.map(drop);
    refused(begin(0, 999, 999).await, 400);
    refused(begin(5, 4, 1_000).await, 400);
    refused(begin(0, 1_001, 1_000).await, 400);
    refused(begin(1, 1_000, 1_000).await, 409);
    refused(place.door().arrived(&url, 999).await, 400);
    // One that ends early stays as far as it came, one that is too long as it was.
    let mut sink = place.begin(&data, 0).await.unwrap();
    send(&mut *sink, &data[..10]).await.unwrap();
    refused(sink.finish().await, 400);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(10));
    let mut sink = place.begin(&data, 10).await.unwrap();
    refused(send(&mut *sink, &data).await, 413);
    drop(sink);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(10));
    // Of a whole that is shorter than it should be nothing is kept.
    let other = bytes(10, 1_000);
    let mut sink = place.door().begin_put(&place.url(&other), None).await.unwrap();
    send(&mut *sink, &other[..10]).await.unwrap();
    refused(sink.finish().await, 400);
    assert_eq!(place.arrived(&other).await.unwrap(), Arrived::Part(0));
}

#[tokio::test]
async fn what_came_whole_and_was_never_named_is_named_when_asked_for() {
    let place = Place::open(8, LEN as u64).await;
    for data in [bytes(11, LEN / 2), Vec::new()] {
        place.break_off(&data, 0..data.len()).await;
        assert!(!place.has(&data).await);
        assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Whole);
        assert!(place.has(&data).await);
    }
    assert!(place.fits(LEN as u64 / 2).await && !place.fits(LEN as u64 / 2 + 1).await);
}

#[tokio::test]
async fn a_limit_holds_for_what_is_missing() {
    let place = Place::open(9, 1_000_000).await;
    let large = bytes(12, 1_000_001);
    refused(place.begin(&large, 0).await.map(drop), QUOTA_STATUS);
    let data = bytes(13, 800_000);
    place.break_off(&data, 0..700_000).await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(700_000));
    // 300,000 are left, and others take them: so much is there, and is not paid again.
    let other = bytes(14, 250_000);
    assert_eq!(place.go_on(&other, 0).await.unwrap(), Arrived::Whole);
    refused(place.begin(&data, 700_000).await.map(drop), QUOTA_STATUS);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(700_000), "it waits for better days");
}

#[tokio::test]
async fn the_next_reign_begins_anew() {
    let mut place = Place::open(10, 1 << 30).await;
    let data = bytes(15, LEN);
    place.restart(Some(4)).await;
    let first = Arc::clone(&place.objects);
    place.break_off(&data, 0..1_000_000).await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(1_000_000), "within a reign it goes on");
    // The one before does not know that it was deposed, and writes on into its own file.
    let mut deposed = place.begin(&data, 1_000_000).await.unwrap();
    send(&mut *deposed, &data[1_000_000..1_100_000]).await.unwrap();
    place.restart(Some(5)).await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(0));
    place.break_off(&data, 0..10).await;
    send(&mut *deposed, &data[1_100_000..]).await.unwrap();
    let _its_own_files_are_gone = deposed.finish().await;
    drop(first);
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(10));
    assert_eq!(place.go_on(&data, 10).await.unwrap(), Arrived::Whole);
    let url = signed(&place.objects, Method::Get, "lab", &digest(&data), LEN as u64);
    assert!(fetch(&place.objects, &url).await.unwrap() == data);
}

#[tokio::test]
async fn what_nobody_goes_on_with_is_let_go() {
    let place = Place::open(11, 1 << 30).await;
    let data = bytes(16, 1_000);
    place.break_off(&data, 0..500).await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(500));
    place.time.jump_monotonic_ms(limits::PART_AGE_MS - 1_000);
    place.objects.let_go().await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(500));
    place.time.jump_monotonic_ms(1_000);
    place.objects.let_go().await;
    assert_eq!(place.arrived(&data).await.unwrap(), Arrived::Part(0));
    assert_eq!(files_in(&place.disk, INCOMING), 0);
}

#[tokio::test]
async fn a_full_disk_keeps_nothing_of_what_it_could_not_take() {
    let place = Place::open(12, 1 << 30).await;
    let data = bytes(17, LEN);
    let capacity_bytes = place.disk.used_bytes() + 1_200_000;
    place.disk.set_faults(DiskFaults { capacity_bytes, ..DiskFaults::default() });
    let mut sink = place.begin(&data, 0).await.unwrap();
    // What is written is told of with the block behind it.
    let told = match send(&mut *sink, &data).await {
        Ok(()) => sink.finish().await,
        Err(error) => Err(error),
    };
    assert!(matches!(told, Err(TransferError::Server { status: 507, .. })), "{told:?}");
    place.objects.put_away().await;
    assert_eq!(files_in(&place.disk, INCOMING), 0, "it makes room");
    place.disk.set_faults(DiskFaults::default());
    assert_eq!(place.go_on(&data, 0).await.unwrap(), Arrived::Whole);
}
