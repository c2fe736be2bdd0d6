//! What answers of Azure prove, and what they do not.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

/// A group that an answer showed at 100 s, and that GETs and LISTs sent at these times do not find.
fn not_found(gets: &[i64], lists: &[i64]) -> AbsenceEvidence {
    let mut absence = AbsenceEvidence::default();
    absence.record_seen(EvidenceSource::Get, at(100));
    absence.record_seen(EvidenceSource::List, at(100));
    for sent_at in gets {
        absence.record_not_found(at(*sent_at));
    }
    for sent_at in lists {
        absence.record_not_listed(at(*sent_at));
    }
    absence
}

#[test]
fn a_group_that_runs_is_gone_after_two_gets_and_a_list_that_began_in_between_or_later() {
    for (gets, lists, is_gone) in [
        (&[110][..], &[][..], false),
        (&[110], &[111], false),
        (&[110, 115], &[], false),
        (&[110, 114], &[111], false),
        (&[110, 115], &[109], false),
        (&[110, 115], &[111], true),
        (&[110, 115], &[116], true),
        (&[110, 115, 120, 125], &[], false),
        (&[110, 115, 120, 125, 229], &[], false),
        (&[110, 115, 120, 125, 230], &[], true),
    ] {
        let absence = not_found(gets, lists);
        assert_eq!(
            absence.is_proven(PriorGroupState::Existed),
            is_gone,
            "{gets:?} {lists:?}"
        );
    }
}

#[test]
fn a_deleted_group_is_gone_after_a_get_and_a_list_that_were_sent_after_the_delete() {
    let mut absence = not_found(&[110], &[111]);
    absence.record_delete(at(120));
    assert!(!absence.is_proven(PriorGroupState::Deleted));
    absence.record_not_listed(at(119));
    absence.record_not_found(at(121));
    assert!(!absence.is_proven(PriorGroupState::Deleted));
    absence.record_not_listed(at(122));
    assert!(absence.is_proven(PriorGroupState::Deleted));
    let without_list = not_found(&[121, 130, 141], &[]);
    assert!(without_list.is_proven(PriorGroupState::Deleted));
}

#[test]
fn a_404_soon_after_a_put_is_lag_until_an_answer_has_shown_the_group() {
    let mut absence = AbsenceEvidence::after_put(at(100));
    for sent_at in [101, 110, 119] {
        absence.record_not_found(at(sent_at));
        absence.record_not_listed(at(sent_at));
    }
    for before in [
        PriorGroupState::NotCreated,
        PriorGroupState::Existed,
        PriorGroupState::Deleted,
    ] {
        assert!(!absence.is_proven(before), "{before:?}");
    }
    assert_eq!(absence.next_check_at(), Some(at(121)));
    absence.record_not_found(at(120));
    assert!(absence.is_proven(PriorGroupState::NotCreated));
    absence.record_seen(EvidenceSource::Get, at(131));
    assert_eq!(absence.next_check_at(), None);
    assert!(!absence.is_proven(PriorGroupState::NotCreated));
}

#[test]
fn an_answer_to_a_request_sent_before_the_last_404_does_not_clear_it() {
    let mut absence = not_found(&[110], &[]);
    absence.record_seen(EvidenceSource::Get, at(109));
    assert!(absence.is_suspected());
    absence.record_seen(EvidenceSource::Get, at(111));
    assert!(!absence.is_suspected());
}

#[test]
fn a_list_that_shows_the_group_does_not_end_the_lag_of_gets() {
    let mut absence = AbsenceEvidence::after_put(at(100));
    absence.record_seen(EvidenceSource::List, at(101));
    absence.record_not_found(at(110));
    absence.record_not_listed(at(111));
    absence.record_not_found(at(116));
    assert!(!absence.is_proven(PriorGroupState::Existed) && !absence.is_suspected());
    absence.record_delete(at(117));
    absence.record_not_found(at(118));
    absence.record_not_listed(at(119));
    assert!(!absence.is_proven(PriorGroupState::Deleted));
    absence.record_not_found(at(120));
    assert!(absence.is_proven(PriorGroupState::Deleted));
}
