// The shell around the code of Element Web: configuration, platform, addresses.
// ?server=URL names the homeserver.

import React from "react";
import ReactDOM from "react-dom";

import BasePlatform from "matrix-react-sdk/src/BasePlatform";
import { MatrixClientPeg } from "matrix-react-sdk/src/MatrixClientPeg";
import PlatformPeg from "matrix-react-sdk/src/PlatformPeg";
import SdkConfig from "matrix-react-sdk/src/SdkConfig";
import { setLanguage } from "matrix-react-sdk/src/languageHandler";
import { init as keepLog } from "matrix-react-sdk/src/rageshake/rageshake";
import AutoDiscoveryUtils from "matrix-react-sdk/src/utils/AutoDiscoveryUtils";

const query = new URLSearchParams(location.search);
const config = {
    brand: "Element",
    default_server_config: { "m.homeserver": { base_url: query.get("server") } },
    default_theme: "light",
    disable_guests: true,
    integrations_ui_url: null,
    integrations_rest_url: null,
};

class Platform extends BasePlatform {
    getConfig = async () => config;
    getDefaultDeviceDisplayName = () => query.get("device") ?? "Element in a test";
    getHumanReadableName = () => "Test Platform";
    getAppVersion = async () => "0";
    requestNotificationPermission = async () => "denied";
    reload = () => location.reload();
}

// screen is what the address says after the #, as MatrixChat wants it.
function screen() {
    const [name, parameters] = location.hash.replace(/^#\/?/, "").split("?");
    return { screen: name, params: Object.fromEntries(new URLSearchParams(parameters)) };
}

await keepLog(false);
PlatformPeg.set(new Platform());
SdkConfig.put(config);
navigator.serviceWorker.addEventListener("message", ({ ports: [port] }) => port.postMessage(MatrixClientPeg.safeGet().getAccessToken()));
await navigator.serviceWorker.register("media.js");
if (!navigator.serviceWorker.controller) {
    await new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
}
await setLanguage(["en"]);
SdkConfig.add({ validated_server_config: await AutoDiscoveryUtils.validateServerConfigWithStaticUrls(query.get("server")) });
const { default: MatrixChat } = await import("matrix-react-sdk/src/components/structures/MatrixChat"); // reads the configuration at once

let shown; // by the application itself
const application = ReactDOM.render(
    React.createElement(MatrixChat, {
        config: SdkConfig.get(),
        onNewScreen: (name, replace) => {
            shown = `#/${name}`;
            if (replace) location.replace(shown);
            else location.assign(shown);
        },
        realQueryParams: {},
        startingFragmentQueryParams: screen().params,
        enableGuest: false,
        onTokenLoginCompleted: () => {},
        initialScreenAfterLogin: screen(),
        defaultDeviceDisplayName: PlatformPeg.get().getDefaultDeviceDisplayName(),
    }),
    document.getElementById("matrixchat"),
);
window.matrixChat = application;
addEventListener("hashchange", () => {
    if (location.hash === shown) return;
    const { screen: name, params } = screen();
    application.showScreen(name, params);
});
if (!location.hash) location.replace("#/login");
