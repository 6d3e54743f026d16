import { Component, useSubEnv } from "@odoo/owl";
import { _t } from "@web/core/l10n/translation";
import { registry } from "@web/core/registry";
import { X2ManyField, x2ManyField } from "@web/views/fields/x2many/x2many_field";
import { standardWidgetProps } from "@web/views/widgets/standard_widget_props";

const SCRIPT_TYPES = ["script", "relational_script"];

/**
 * An editable list whose rows also open in a dialog.
 *
 * A button of an editable list, and core's "open in form view", save the parent first. A line whose script is still
 * to be written could not be saved, so here the dialog works on the unsaved row.
 */
export class ApiConfigLinesField extends X2ManyField {
    setup() {
        super.setup();
        useSubEnv({ openApiConfigLine: (record) => this.openLine(record) });
    }

    async openLine(record) {
        if (!(await this.list.leaveEditMode({ canAbandon: false }))) {
            await record.checkValidity({ displayNotification: true });
            return;
        }
        const isScript = SCRIPT_TYPES.includes(record.data.value_type);
        return this._openRecord({
            record,
            context: this.props.context,
            readonly: this.props.readonly,
            title: isScript ? _t("Python Script") : _t("Configuration Line"),
        });
    }
}

export class ApiConfigLineButton extends Component {
    static template = "bj_api_sync.ConfigLineButton";
    static props = standardWidgetProps;

    get isScript() {
        return SCRIPT_TYPES.includes(this.props.record.data.value_type);
    }

    get isMissing() {
        return this.isScript && !this.props.record.data.script;
    }

    onClick() {
        return this.env.openApiConfigLine(this.props.record);
    }
}

registry.category("fields").add("bj_api_config_lines", { ...x2ManyField, component: ApiConfigLinesField });
registry.category("view_widgets").add("bj_api_config_line_button", {
    component: ApiConfigLineButton,
    fieldDependencies: [
        { name: "value_type", type: "selection" },
        { name: "script", type: "text" },
    ],
});
