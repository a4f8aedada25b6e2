"""What holds for each kind of connection that can be joined."""

from __future__ import annotations

import pytest
from joining.app import App
from joining.flavours import DRIVERS, FLAVOURS, Flavour

from piecework import InvalidConfig, JobAlreadyExists, NoTransaction, TransactionError, WrongConnection, new_id
from piecework.store.statements import Statements

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name)
every_driver = pytest.mark.parametrize("flavour", DRIVERS, ids=lambda flavour: flavour.name)


@every_flavour
def test_a_commit_leaves_all_jobs(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        one = session.spawn(app.greet, "Ada")
        two = session.spawn_all(app.jobs, [app.greet.spec("Grace"), app.greet.spec("Mary")])
        assert app.stored() == {}
        session.commit()
        assert app.stored() == {one.id: "Ada", two[0].id: "Grace", two[1].id: "Mary"}
    assert one.created


@every_flavour
def test_a_rollback_leaves_nothing(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        session.spawn(app.greet, "Ada")
        session.spawn_all(app.jobs, [app.greet.spec("Grace"), app.greet.spec("Mary")])
        session.rollback()
        assert app.stored() == {}


@every_flavour
def test_without_a_transaction_nothing_is_spawned(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn, autocommit=True) as session:
        with pytest.raises(NoTransaction, match="or leave the connection out"):
            session.spawn(app.greet, "Ada")
        with pytest.raises(NoTransaction):
            session.spawn_all(app.jobs, [app.greet.spec("Grace")])
    assert app.stored() == {}


@every_flavour
def test_a_call_of_the_other_kind_is_refused(app: App, flavour: Flavour) -> None:
    said = "with the suffix _sync" if flavour.blocking else "without the suffix _sync"
    with flavour.open(app.dsn) as session, pytest.raises(WrongConnection, match=said) as raised:
        session.spawn_otherwise(app.greet, "Ada")
    assert isinstance(raised.value, TypeError)


@every_driver
def test_an_id_that_exists_is_named(app: App, flavour: Flavour) -> None:
    chosen = app.greet.options(id=new_id())
    with flavour.open(app.dsn) as session:
        id = session.spawn(chosen, "Ada").id
        session.commit()
    with flavour.open(app.dsn) as session:
        with pytest.raises(JobAlreadyExists, match=f"exists already: {id}.*Roll your transaction back") as raised:
            session.spawn(chosen, "Grace")
        assert raised.value.__cause__ is not None
        with pytest.raises(TransactionError, match="the transaction is aborted"):
            session.spawn(app.greet, "Mary")
        session.rollback()
    assert app.stored() == {id: "Ada"}


@every_driver
def test_a_value_that_the_database_refuses_is_an_invalid_config(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        with pytest.raises(InvalidConfig, match=r"PostgreSQL refuses a value of the job: .*Roll your transaction back"):
            session.run(Statements("piecework"), "spawn", '[{"id": "no id", "job_type": "greet", "config": {}}]')
        session.rollback()


@every_driver
def test_a_cancellation_counts_with_the_commit(app: App, flavour: Flavour) -> None:
    with flavour.open(app.dsn) as session:
        kept, gone = session.spawn(app.greet, "Ada"), session.spawn(app.greet, "Grace")
        session.commit()
    with flavour.open(app.dsn) as session:
        assert session.cancel(kept) is True
        session.rollback()
    with flavour.open(app.dsn) as session:
        assert session.cancel(gone) is True
        assert app.stored() == {kept.id: "Ada", gone.id: "Grace"}
        session.commit()
    assert app.stored() == {kept.id: "Ada"}
