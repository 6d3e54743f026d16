from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from odoo import fields, models
from odoo.api import Environment

from odoo.addons.bj_bench_peers.operations import Orm
from odoo.addons.fastapi.dependencies import odoo_env

router = APIRouter()


def get_room(
    env: Annotated[Environment, Depends(odoo_env)],
    token: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
):
    """The operations as the owner of the API key, the one that JSON-2 is called with."""
    user_id = env["res.users.apikeys"].sudo()._check_credentials(scope="rpc", key=token.credentials)
    if not user_id:
        raise HTTPException(401)
    env = env(user=user_id)
    env.transaction.default_env = env  # else nested commands run as the public user
    return Orm(env)


Room = Annotated[Orm, Depends(get_room)]


class Values(BaseModel):
    name: str
    ref: str
    email: str | None = None
    phone: str | None = None
    street: str | None = None
    city: str | None = None
    zip: str | None = None
    country_id: int | None = None
    is_company: bool = False


class Partner(Values):
    id: int
    ref: str | None
    write_date: datetime


def clean(values):
    """Odoo's False is null; of a boolean it is what it says."""
    return {name: None if value is False and name != "is_company" else value for name, value in values.items()}


def dump(values):
    return values.model_dump(exclude_unset=True)


@router.post("/list")
def serve_list(room: Room, offset: Annotated[int, Body(embed=True)] = 0) -> list[Partner]:
    return [clean(values) for values in room.list(offset)]


@router.post("/one")
def serve_one(room: Room, key: Annotated[str, Body(embed=True)]) -> Partner:
    return clean(room.one(key))


@router.post("/create")
def serve_create(room: Room, values: Annotated[list[Values], Body(embed=True)]) -> list[int]:
    return room.create([dump(item) for item in values])


@router.post("/upsert")
def serve_upsert(room: Room, values: Annotated[list[Values], Body(embed=True)]) -> list[int]:
    return room.upsert([dump(item) for item in values])


@router.post("/nested")
def serve_nested(room: Room, values: Values, children: list[Values]) -> list[int]:
    return room.nested(dump(values), [dump(child) for child in children])


class FastapiEndpoint(models.Model):
    _inherit = "fastapi.endpoint"

    app = fields.Selection(selection_add=[("bj_bench", "Benchmark")], ondelete={"bj_bench": "cascade"})

    def _get_fastapi_routers(self):
        return [router] if self.app == "bj_bench" else super()._get_fastapi_routers()
