"""Records requests to the token endpoint, and replaces responses by faults."""

import time
from collections.abc import Callable, Iterator

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from tests.sandbox.provider import records
from tests.sandbox.provider.faults import ProviderFault, take_fault

GetResponse = Callable[[HttpRequest], HttpResponseBase]
RECORDED_PATHS = {"/token/", "/revoke/"}


def record_requests(get_response: GetResponse) -> GetResponse:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path not in RECORDED_PATHS:
            return get_response(request)
        started_at = time.time()
        response = get_response(request)
        is_fault = getattr(response, "is_fault", False)
        records.add(request, response, started_at=started_at, is_fault=is_fault)
        return response

    return middleware


def inject_faults(get_response: GetResponse) -> GetResponse:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        fault = take_fault(request.path)
        if fault is None:
            return get_response(request)
        if not fault.after:
            time.sleep(fault.delay_seconds)
        if fault.status is None or fault.after:
            response = get_response(request)
        if fault.after:
            time.sleep(fault.delay_seconds)
        return response if fault.status is None else _faulty(fault, fault.status)

    return middleware


def _faulty(fault: ProviderFault, status: int) -> HttpResponseBase:
    response: HttpResponse | StreamingHttpResponse
    if fault.drip_seconds:
        response = StreamingHttpResponse(_drip(fault), status=status)
        response["Content-Type"] = fault.content_type
    else:
        response = HttpResponse(fault.body, status=status, content_type=fault.content_type)
    for name, value in fault.headers.items():
        response[name] = value
    response.is_fault = True  # type: ignore[union-attr]
    return response


def _drip(fault: ProviderFault) -> Iterator[bytes]:
    for byte in fault.body.encode():
        yield bytes([byte])
        time.sleep(fault.drip_seconds)
