"""piecework's tables in Django's migrations (S32), by the real Django on a real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from migrations.project import Project, example, lose_a_function, psql, run_a_job, schemas
from psycopg.conninfo import conninfo_to_dict

SETTINGS = """import os
DATABASES = {
    "default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["NAME"], "USER": os.environ["USER_"],
                "HOST": os.environ["HOST"], "PORT": os.environ["PORT"]},
    "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": "lite.db"},
}
DATABASE_ROUTERS = ["settings.Router"] if "ROUTER" in os.environ else []
INSTALLED_APPS = ["shop"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

class Router:
    def allow_migrate(self, db, app_label, **hints):
        return db == "default"
"""

MODELS = """from django.db import models

class Basket(models.Model):
    owner = models.TextField()
"""

INITIAL = """from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True
    operations = [migrations.CreateModel("Basket", [
        ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
        ("owner", models.TextField()),
    ])]
"""

MIGRATION = """from django.db import migrations
from piecework.integrations.django import MigratePiecework

class Migration(migrations.Migration):
    dependencies = [("shop", {before!r})]
    operations = [MigratePiecework({arguments})]
"""

FILES = {
    "settings.py": SETTINGS,
    "shop/__init__.py": "",
    "shop/models.py": MODELS,
    "shop/migrations/__init__.py": "",
    "shop/migrations/0001_initial.py": INITIAL,
    "shop/migrations/0002_piecework.py": example("from django.db import migrations\n"),
    "shop/migrations/0003_piecework_again.py": MIGRATION.format(before="0002_piecework", arguments="keep=True"),
}


def project(dsn: str, folder: Path, files: dict[str, str]) -> Project:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    return Project(
        folder, files, DJANGO_SETTINGS_MODULE="settings", NAME=parts["dbname"], USER_=parts["user"],
        HOST=parts["host"], PORT=parts["port"],
    )  # fmt: skip


@pytest.fixture
def django(empty_dsn: str, tmp_path: Path) -> Callable[..., str]:
    """Run `django-admin` in the project."""
    shop = project(empty_dsn, tmp_path, FILES)
    return lambda *arguments, **how: shop.python("-m", "django", *arguments, **how)


@pytest.mark.postgres(18, 15)
def test_migrate_makes_the_tables_and_going_back_takes_them_away(
    server: object, empty_dsn: str, django: Callable[..., str]
) -> None:
    assert "Applying shop.0002_piecework... OK" in django("migrate")
    run_a_job(empty_dsn)
    django("migrate", "shop", "0001")
    assert schemas(empty_dsn) == ["public"]
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("SELECT count(*) FROM shop_basket").fetchone() == (0,)
    django("migrate", "shop")
    run_a_job(empty_dsn)
    django("migrate", "shop", "zero")
    assert schemas(empty_dsn) == ["public"]


def test_a_later_migration_brings_the_tables_of_an_older_release_up_to_date(
    empty_dsn: str, django: Callable[..., str]
) -> None:
    django("migrate", "shop", "0002")
    run_a_job(empty_dsn)
    lose_a_function(empty_dsn)
    django("migrate", "shop", "0003")
    run_a_job(empty_dsn)
    django("migrate", "shop", "0002")  # keep=True: schemas only go forward
    run_a_job(empty_dsn)


def test_what_sqlmigrate_prints_makes_the_same_and_takes_it_back(empty_dsn: str, django: Callable[..., str]) -> None:
    for name in ("0002", "0003"):
        psql(empty_dsn, django("sqlmigrate", "shop", name))
    run_a_job(empty_dsn)
    assert "DROP" not in django("sqlmigrate", "shop", "0003", "--backwards")
    psql(empty_dsn, django("sqlmigrate", "shop", "0002", "--backwards"))
    assert schemas(empty_dsn) == ["public"]


def test_makemigrations_sees_no_change(empty_dsn: str, django: Callable[..., str]) -> None:
    django("migrate")
    assert "No changes detected" in django("makemigrations", "--check")


def test_the_operation_says_what_it_does_and_is_written_into_squashed_migrations(
    empty_dsn: str, django: Callable[..., str], tmp_path: Path
) -> None:
    assert "Bring piecework's tables in the schema 'piecework' up to date" in django("migrate", "--plan")
    django("squashmigrations", "shop", "0001", "0003", "--no-input")
    (squashed,) = (tmp_path / "shop" / "migrations").glob("0001_*squashed*.py")
    text = squashed.read_text()
    assert text.count("MigratePiecework(") == 2
    assert "keep=True" in text
    django("migrate")
    run_a_job(empty_dsn)


def test_another_schema_is_named_in_the_operation(empty_dsn: str, tmp_path: Path) -> None:
    files = FILES | {
        "shop/migrations/0002_piecework.py": MIGRATION.format(before="0001_initial", arguments="'a %s \"b\"'"),
    }
    files.pop("shop/migrations/0003_piecework_again.py")
    shop = project(empty_dsn, tmp_path, files)
    shop.python("-m", "django", "migrate")
    run_a_job(empty_dsn, 'a %s "b"')
    shop.python("-m", "django", "migrate", "shop", "zero")
    assert schemas(empty_dsn) == ["public"]


def test_another_database_is_refused_unless_a_router_keeps_the_migration_from_it(django: Callable[..., str]) -> None:
    complaint = django("migrate", "--database", "lite", fails=True)
    assert "the database 'lite' is sqlite, and piecework lives in PostgreSQL" in complaint
    django("migrate", "--database", "lite", ROUTER="1")
