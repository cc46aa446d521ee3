//! x
use mixline_wide_crypto::{Width, hctr2::Hctr2};
use std::time::Instant;
fn main() {
    let t = hctr2_rs::Hctr2_256::new(&[7; 32]);
    for w in Width::available() {
        check::<48>(w, &t);
        check::<304>(w, &t);
        check::<560>(w, &t);
        check::<1072>(w, &t);
    }
    let ws: Vec<Width> = Width::available().collect();
    let mut best = [[f64::MAX; 4]; 4];
    for _ in 0..60 {
        for (i, w) in ws.iter().enumerate() {
            let h = Hctr2::with(&[7; 32], *w);
            let mut m = vec![[1u8; 1072]; 64];
            let n = 20;
            let t = Instant::now();
            for _ in 0..n {
                for m in &mut m {
                    h.decrypt(&[5; 16], m);
                }
            }
            best[i][0] = best[i][0].min(t.elapsed().as_nanos() as f64 / (n * 64) as f64);
            let t = Instant::now();
            for _ in 0..n {
                for m in &mut m {
                    h.encrypt(&[5; 16], m);
                }
            }
            best[i][1] = best[i][1].min(t.elapsed().as_nanos() as f64 / (n * 64) as f64);
            let t = Instant::now();
            for _ in 0..n {
                for m in &mut m {
                    Hctr2::with(std::hint::black_box(&[7; 32]), *w).decrypt(&[5; 16], m);
                }
            }
            best[i][2] = best[i][2].min(t.elapsed().as_nanos() as f64 / (n * 64) as f64);
            let t = Instant::now();
            for _ in 0..n {
                for _ in &mut m {
                    std::hint::black_box(Hctr2::with(std::hint::black_box(&[7; 32]), *w));
                }
            }
            best[i][3] = best[i][3].min(t.elapsed().as_nanos() as f64 / (n * 64) as f64);
        }
    }
    for (w, b) in ws.iter().zip(best) {
        println!(
            "{w:?}: dec {:.0} enc {:.0} fresh+dec {:.0} fresh {:.0}",
            b[0], b[1], b[2], b[3]
        );
    }

    use mixline_wide_crypto::gcm::Gcm;
    let ring = Gcm::with(&[9; 32], Width::named("scalar").unwrap());
    let mut best = [[f64::MAX; 2]; 4];
    for _ in 0..60 {
        for (i, w) in ws.iter().enumerate() {
            let g = Gcm::with(&[9; 32], *w);
            let mut m = vec![[1u8; 1408]; 64];
            g.seal(77, &mut m[0]);
            let mut r = [1u8; 1408];
            ring.seal(77, &mut r);
            assert_eq!(m[0], r, "{w:?}");
            g.open(77, &mut r).unwrap();
            assert!(r[..1392].iter().all(|b| *b == 1));
            let n = 20;
            let t = Instant::now();
            for _ in 0..n {
                for m in &mut m {
                    g.seal(5, m);
                }
            }
            best[i][0] = best[i][0].min(t.elapsed().as_nanos() as f64 / (n * 64) as f64);
            let mut took = 0;
            for _ in 0..n {
                for m in &mut m {
                    g.seal(5, m);
                }
                let t = Instant::now();
                for m in &mut m {
                    g.open(5, m).unwrap();
                }
                took += t.elapsed().as_nanos();
            }
            best[i][1] = best[i][1].min(took as f64 / (n * 64) as f64);
        }
    }
    for (w, b) in ws.iter().zip(best) {
        println!("{w:?}: seal {:.0} open {:.0}", b[0], b[1]);
    }
}

fn check<const N: usize>(w: Width, t: &hctr2_rs::Hctr2_256) {
    let h = Hctr2::with(&[7; 32], w);
    let plain: [u8; N] = std::array::from_fn(|i| (i * 31 % 251) as u8);
    let mut m = plain;
    let mut e = vec![0; N];
    t.encrypt(&plain, &[5; 16], &mut e).unwrap();
    h.encrypt(&[5; 16], &mut m);
    assert_eq!(m[..], e, "{w:?} {N}");
    h.decrypt(&[5; 16], &mut m);
    assert_eq!(m, plain, "{w:?} {N}");
}
