"""What a button answers in the web client."""


def notify(kind, message, **params):
    """Make the client action that shows a message.

    :param str kind: ``success``, ``warning`` or ``danger``
    :param str message: what happened
    :param params: more of its parameters: ``title``, ``sticky``, and ``next``, the action that follows
    :rtype: dict
    """
    params = {"type": kind, "message": message, **params}
    return {"type": "ir.actions.client", "tag": "display_notification", "params": params}
