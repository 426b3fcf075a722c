package clientapi

// tables are the route lists, one beside the handlers of each noun.
var tables = [][]route{
	accountRoutes,
	accountDataRoutes,
	adminRoutes,
	deviceRoutes,
	directoryRoutes,
	eventRoutes,
	filterRoutes,
	keyBackupRoutes,
	keyRoutes,
	loginRoutes,
	presenceRoutes,
	profileRoutes,
	pushRuleRoutes,
	pusherRoutes,
	receiptRoutes,
	registerRoutes,
	roomRoutes,
	serverRoutes,
	syncRoutes,
	tagRoutes,
	toDeviceRoutes,
	typingRoutes,
}
